import { afterAll, beforeAll, expect, test } from "bun:test";
import { rmSync } from "node:fs";
import { parseBytes } from "../../src/lib/quantity.ts";
import { createKubeClient } from "../../src/runtime/kubernetes/api/client.ts";
import { connectionOf } from "../../src/runtime/kubernetes/api/connection.ts";
import { temporaryFolder } from "../harness.ts";
import { apiServerPid, onCluster } from "../on-cluster.ts";
import { kubeConfig } from "../runtime/kubernetes/cluster.ts";
import { kubectl } from "../runtime/kubernetes/kubectl.ts";
import { until } from "../until.ts";
import { ClusterServer, inTerminal, logOf, template } from "./cluster.ts";

const CLASS = `growing-${process.pid}`;
const IS_DEFAULT = "storageclass.kubernetes.io/is-default-class";
const MIB = 2 ** 20;

/**
 * A volume with a filesystem of its own on this machine, of a class whose volumes can grow. The test is its
 * provisioner and its resizer, as a storage driver has them.
 */
class GrowingVolume {
  readonly #mount = temporaryFolder();

  async make(mib: number): Promise<void> {
    await run(["mount", "-t", "tmpfs", "-o", `size=${mib}m`, "tmpfs", this.#mount]);
    const volume = {
      apiVersion: "v1",
      kind: "PersistentVolume",
      metadata: { name: CLASS },
      spec: {
        accessModes: ["ReadWriteOnce"],
        capacity: { storage: `${mib}Mi` },
        hostPath: { path: this.#mount },
        storageClassName: CLASS,
      },
    };
    await kubectl(["apply", "-f", "-"], JSON.stringify(volume));
  }

  /** Gives a claim what it asks for. */
  async grow(claim: Claim): Promise<void> {
    const { storage } = claim.spec.resources.requests;
    await run(["mount", "-o", `remount,size=${parseBytes(storage)}`, this.#mount]);
    const capacity = { storage };
    await kubectl(["patch", "pv", CLASS, "-p", JSON.stringify({ spec: { capacity } })]);
    const { namespace, name } = claim.metadata;
    const path = `/api/v1/namespaces/${namespace}/persistentvolumeclaims/${name}/status`;
    const contentType = "application/merge-patch+json";
    await (
      await createKubeClient(connectionOf(kubeConfig())).request("PATCH", path, {
        body: { status: { capacity } },
        contentType,
      })
    ).text();
  }

  async remove(): Promise<void> {
    await kubectl(["delete", "--ignore-not-found", "pv", CLASS]);
    // Kubelet lets go of a mount when it has seen the pod's end.
    const unmounted = () =>
      run(["umount", this.#mount]).then(
        () => true,
        () => false,
      );
    await until(unmounted, { timeoutMs: 30_000, intervalMs: 200 });
    rmSync(this.#mount, { recursive: true });
  }
}

async function run(command: string[]): Promise<string> {
  const process = Bun.spawn(command, { stdin: "ignore", stdout: "pipe", stderr: "pipe" });
  const [code, output, errors] = await Promise.all([
    process.exited,
    process.stdout.text(),
    process.stderr.text(),
  ]);
  if (code !== 0) throw new Error(`${command.join(" ")}: ${errors}`);
  return output.trim();
}

async function setDefault(name: string, isDefault: boolean): Promise<void> {
  await kubectl(["annotate", "--overwrite", "storageclass", name, `${IS_DEFAULT}=${isDefault}`]);
}

interface Claim {
  metadata: { namespace: string; name: string };
  spec: { resources: { requests: { storage: string } } };
}

async function claimOf(environmentId: string): Promise<Claim> {
  const label = `devpocket.dev/environment-id=${environmentId}`;
  const list: { items: Claim[] } = JSON.parse(await kubectl(["get", "pvc", "-A", "-l", label, "-o", "json"]));
  const [claim] = list.items;
  if (!claim) throw new Error("there is no claim");
  return claim;
}

onCluster(
  "a storage class whose volumes can grow",
  () => {
    const volume = new GrowingVolume();
    let server: ClusterServer;
    let defaults: string[];

    beforeAll(async () => {
      const classes: { items: { metadata: { name: string; annotations?: Record<string, string> } }[] } =
        JSON.parse(await kubectl(["get", "storageclass", "-o", "json"]));
      defaults = classes.items
        .filter(({ metadata }) => metadata.annotations?.[IS_DEFAULT] === "true")
        .map(({ metadata }) => metadata.name);
      const growing = {
        apiVersion: "storage.k8s.io/v1",
        kind: "StorageClass",
        metadata: { name: CLASS },
        provisioner: "kubernetes.io/no-provisioner",
        allowVolumeExpansion: true,
      };
      await kubectl(["apply", "-f", "-"], JSON.stringify(growing));
      for (const name of defaults) await setDefault(name, false);
      await setDefault(CLASS, true);
      await volume.make(64);
      server = await ClusterServer.start();
    }, 60_000);

    afterAll(async () => {
      await kubectl(["delete", "--ignore-not-found", "storageclass", CLASS]);
      for (const name of defaults) await setDefault(name, true);
      const left = await server.client.list("/api/v1/environments");
      for (const { id } of left) {
        await server.client.delete(`/api/v1/environments/${id}`, 204, { Prefer: "wait=60" });
      }
      await volume.remove();
      await server.close();
    }, 150_000);

    test("a workspace grows when it is started again: its files stay, and its use is of the new size", async () => {
      const { client } = server;
      await client.post("/api/v1/templates", template("plain", []), 201);
      const { id, status } = await client.environment({ name: "growing", template: "plain" });
      expect(status).toBe("running");
      const environment = `/api/v1/environments/${id}`;
      await inTerminal(client, String(id), "head -c 32M /dev/zero >file");
      const usage = async () => (await client.get(`${environment}/metrics`)).storage_usage;
      await until(async () => (await usage()) === 50, { timeoutMs: 60_000, intervalMs: 500 });

      const changed = await client.put(environment, { resources: { storage: "128Mi" } });
      expect(changed).toMatchObject({ restart_required: true });
      expect((await claimOf(String(id))).spec.resources.requests.storage).toBe("64Mi");
      await client.post(`${environment}/restart`, {}, 200, { Prefer: "wait=60" });
      const claim = await claimOf(String(id));
      expect(claim.spec.resources.requests.storage).toBe("128Mi");

      await volume.grow(claim);
      expect(await inTerminal(client, String(id), "wc -c <file")).toBe(`${32 * MIB}\n`);
      await until(async () => (await usage()) === 25, { timeoutMs: 60_000, intervalMs: 500 });
      expect((await logOf(client, String(id), "system")).join("\n")).not.toContain("StorageNotGrown");
    }, 180_000);
  },
  apiServerPid() !== null,
);
