import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { serverManifests, toYaml } from "../../../src/runtime/kubernetes/manifests/deployment.ts";
import type { EnvironmentSpec, Observed, Runtime } from "../../../src/runtime/runtime.ts";
import { until } from "../../until.ts";
import { type Cluster, kubeConfig, openCluster } from "./cluster.ts";
import { kubectl } from "./kubectl.ts";

const namespace = `devpocket-rights-${process.pid}`;
const manifests = toYaml(serverManifests({ image: "devpocket:1.0.0", namespace }));

describe.if(Boolean(process.env.KUBECONFIG))(
  "with nothing but the rights of the server's own manifests",
  () => {
    let cluster: Cluster;
    let runtime: Runtime;
    let spec: EnvironmentSpec;

    beforeAll(async () => {
      await kubectl(["apply", "-f", "-"], manifests);
      const token = await kubectl(["create", "token", "devpocket", "--namespace", namespace]);
      cluster = openCluster();
      const account = kubeConfig();
      const server = account.getCurrentCluster();
      if (!server) throw new Error("KUBECONFIG names no cluster");
      account.loadFromClusterAndUser(server, { name: "devpocket", token });
      runtime = cluster.restart({ cluster: { kubeConfig: account } });
      spec = cluster.spec({ startupCommands: ["echo hello > greeting"] });
    });
    afterAll(async () => {
      await runtime.remove(spec);
      await reach("absent");
      await cluster.close();
      await kubectl(["delete", "--ignore-not-found", "--wait=false", "-f", "-"], manifests);
    }, 60_000);

    function reach(phase: Observed["phase"]): Promise<Observed> {
      const seen = async () => {
        const observed = await runtime.observe(spec);
        return observed.phase === phase ? observed : undefined;
      };
      return until(seen, { timeoutMs: 50_000, intervalMs: 200, message: `did not become ${phase}` });
    }

    /** What a shell prints until it ends. */
    async function shell(input: string): Promise<string> {
      let printed = "";
      const ended = Promise.withResolvers<number | null>();
      const pty = await runtime.openTerminal(spec, {
        size: { cols: 80, rows: 24 },
        onData(bytes) {
          printed += Buffer.from(bytes).toString();
        },
        onExit: ended.resolve,
        onDrain() {},
      });
      pty.write(Buffer.from(`${input}; exit 7\n`));
      expect(await ended.promise).toBe(7);
      return printed;
    }

    test("an environment lives its whole life", async () => {
      await runtime.ensure(spec);
      await reach("running");
      expect(await shell("cat greeting")).toContain("hello");
      await runtime.stop(spec);
      await reach("stopped");
      spec = { ...spec, generation: spec.generation + 1, startupCommands: [] };
      await runtime.ensure(spec);
      await reach("running");
      expect(await shell("cat greeting")).toContain("hello");
    }, 120_000);

    test("a volume that can't grow is said not to", async () => {
      spec = {
        ...spec,
        generation: spec.generation + 1,
        startupCommands: ["echo from-the-container"],
        resources: { ...spec.resources, storageBytes: spec.resources.storageBytes * 2 },
      };
      await runtime.ensure(spec);
      await reach("running");
      const events = await kubectl(["get", "events", "--all-namespaces", "-o", "name"]);
      expect(events).toContain("storage");
    }, 90_000);

    test("its log, its use and the cluster's figures can be read", async () => {
      let seen = false;
      for await (const line of runtime.logs(spec, { after: null, signal: AbortSignal.timeout(30_000) })) {
        seen = line.source === "container" && line.message === "from-the-container";
        if (seen) break;
      }
      expect(seen).toBe(true);
      const usage = await runtime.usage(spec);
      expect(usage?.memoryBytes).toBeGreaterThan(0);
      expect((await runtime.capacity()).readyNodes).toBeGreaterThan(0);
      const { environmentId, userId } = spec;
      const place = `/namespaces/devpocket-${userId}`;
      const objects = expect.arrayContaining([
        `/apis/apps/v1${place}/deployments/env-${environmentId}`,
        `/api/v1${place}/services/env-${environmentId}`,
        `/api/v1${place}/configmaps/env-${environmentId}`,
      ]);
      expect(await runtime.list()).toContainEqual({ environmentId, userId, objects });
    }, 60_000);

    test("what it has made goes with its claim, also the secret, which it may not list", async () => {
      const other = cluster.spec();
      await runtime.ensure(other);
      const name = `env-${other.environmentId}`;
      const there = ["get", "secret,cm,svc", name, "-n", `devpocket-${other.userId}`, "--ignore-not-found"];
      expect((await kubectl([...there, "-o", "name"])).trim().split("\n")).toHaveLength(3);
      await kubectl(["delete", "deploy,pvc", name, "-n", `devpocket-${other.userId}`]);
      await until(async () => (await kubectl([...there, "-o", "name"])) === "", {
        timeoutMs: 60_000,
        intervalMs: 500,
      });
    }, 120_000);

    test("what restricts its user is seen to be missing, and made again", async () => {
      const problem = async () => {
        const observed = await runtime.observe(spec);
        return observed.phase === "running" ? (observed.problem?.message ?? "none") : observed.phase;
      };
      expect(await problem()).toBe("none");
      for (const kind of ["networkpolicy", "limitrange"]) {
        await kubectl(["delete", kind, "devpocket", "-n", `devpocket-${spec.userId}`]);
        const message = `${kind} "devpocket" is missing in the cluster`;
        await until(async () => (await problem()) === message, { message });
        await runtime.mend?.(spec);
        expect(await problem()).toBe("none");
        await kubectl(["get", kind, "devpocket", "-n", `devpocket-${spec.userId}`]);
      }
    }, 60_000);
  },
);
