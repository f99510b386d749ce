import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { KubeConfig } from "@kubernetes/client-node";
import { type TestClient, TestServer, temporaryFolder } from "../harness.ts";
import { onCluster } from "../on-cluster.ts";
import { kubectl } from "../runtime/kubernetes/kubectl.ts";
import { until } from "../until.ts";
import { ApiProxy } from "./api-proxy.ts";
import { inTerminal, KUBECONFIG, logOf, objectsOf, template } from "./cluster.ts";

const MAIN = join(import.meta.dir, "../../src/main.ts");
const NAMESPACE = `devpocket-e2e-${process.pid}`;
/** Not 127.0.0.1, whose port 443 may be in use. */
const ADDRESS = "127.0.0.77";

/**
 * Runs the server as in a pod of the cluster, as far as the server can see: the service account's files are
 * where Kubernetes mounts them, and the API server has the name that a cluster's DNS gives it. Both are seen
 * by that process alone, in a mount namespace of its own.
 */
const AS_IN_POD = `mount -t tmpfs tmpfs /var/run
mkdir -p /var/run/secrets/kubernetes.io/serviceaccount
mount --bind "$POD_FILES/hosts" /etc/hosts
mount --bind "$POD_FILES/serviceaccount" /var/run/secrets/kubernetes.io/serviceaccount
exec "$0" "$@"`;

onCluster("a server with nothing but its service account's token, as in a pod", () => {
  const files = temporaryFolder();
  let manifests: string;
  let way: ApiProxy;
  let server: TestServer;
  let client: TestClient;

  beforeAll(async () => {
    const printed = Bun.spawn(["bun", MAIN, "manifests", "devpocket:1.0.0", NAMESPACE], { stdout: "pipe" });
    manifests = await printed.stdout.text();
    expect(await printed.exited).toBe(0);
    await kubectl(["apply", "-f", "-"], manifests);
    const token = await kubectl(["create", "token", "devpocket", "--namespace", NAMESPACE]);
    const config = new KubeConfig();
    config.loadFromFile(KUBECONFIG);
    mkdirSync(join(files, "serviceaccount"));
    writeFileSync(join(files, "serviceaccount/token"), token);
    writeFileSync(join(files, "serviceaccount/namespace"), NAMESPACE);
    writeFileSync(
      join(files, "serviceaccount/ca.crt"),
      Buffer.from(config.getCurrentCluster()?.caData ?? "", "base64"),
    );
    writeFileSync(join(files, "hosts"), `127.0.0.1 localhost\n${ADDRESS} kubernetes.default.svc\n`);
    way = new ApiProxy({ hostname: ADDRESS, port: 443 });
    server = await TestServer.start({
      command: ["unshare", "--mount", "sh", "-ec", AS_IN_POD, process.execPath, MAIN],
      environment: { LOCAL_RUNTIME: "off", POD_FILES: files, METRICS_TOKEN: "a-token-for-the-metrics" },
    });
    client = await server.signedIn();
  }, 60_000);

  afterAll(async () => {
    await server?.stop();
    way?.close();
    await kubectl(["delete", "--ignore-not-found", "--wait=false", "-f", "-"], manifests);
    rmSync(files, { recursive: true });
  }, 60_000);

  test("registers its own cluster, and does the main job there over HTTP", async () => {
    const own = await until(
      async () => (await client.list("/api/v1/clusters")).find(({ name }) => name === "in-cluster"),
      { timeoutMs: 30_000, intervalMs: 200, message: () => server.output.text },
    );
    expect(own).toMatchObject({ status: "active", kubeconfig: "[ENCRYPTED]" });
    await client.post("/api/v1/templates", template("plain", ["echo hello >greeting"]), 201);
    const waited = { Prefer: "wait=60" };
    const { id, status } = await client.environment({ name: "mine", template: "plain", cluster_id: own.id });
    expect(status).toBe("running");
    const environment = `/api/v1/environments/${id}`;
    expect(await inTerminal(client, String(id), "cat greeting; echo kept >file")).toBe("hello\n");
    const used = async () => Number((await client.get(`${environment}/metrics`)).memory_usage) > 0;
    await until(used, { timeoutMs: 20_000, intervalMs: 200 });
    await until(async () =>
      (await logOf(client, String(id), "system")).some((line) => /^Started/.test(line)),
    );
    expect((await client.post(`${environment}/stop`, {}, 200, waited)).status).toBe("stopped");
    // Storage that can't grow there is told by an event, which the token must be allowed to write.
    await client.put(environment, { resources: { storage: "128Mi" } });
    expect((await client.post(`${environment}/start`, {}, 200, waited)).status).toBe("running");
    await until(async () =>
      (await logOf(client, String(id), "system")).some((line) => /^StorageNotGrown: /.test(line)),
    );
    expect(await inTerminal(client, String(id), "cat file")).toBe("kept\n");
    expect(await client.get("/api/v1/clusters/in-cluster/health")).toMatchObject({ status: "healthy" });
    await client.delete(environment, 204, waited);
    const { id: userId } = await client.get("/api/v1/users/me");
    await until(async () => (await objectsOf(String(userId))).length === 0, {
      timeoutMs: 60_000,
      intervalMs: 500,
    });
    expect(server.output.text).not.toMatch(/forbidden|cannot (get|list|create|patch|delete)/i);
  }, 180_000);

  test("tells of it in its metrics", async () => {
    const headers = { Authorization: "Bearer a-token-for-the-metrics" };
    const text = await (await fetch(`${server.url}/metrics`, { headers })).text();
    const figure = (line: RegExp) => Number(line.exec(text)?.[1]);
    expect(figure(/^devpocket_environment_transition_duration_seconds_count\{.*\} (\d+)/m)).toBeGreaterThan(
      0,
    );
    expect(figure(/^devpocket_terminal_bytes_total\{direction="out"\} (\d+)/m)).toBeGreaterThan(0);
    expect(figure(/^devpocket_environments\{status="terminated"\} (\d+)/m)).toBe(1);
    expect(figure(/^devpocket_environments\{status="running"\} (\d+)/m)).toBe(0);
  });
});
