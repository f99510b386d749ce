import { afterAll, beforeAll, expect, test } from "bun:test";
import { parseBytes } from "../../src/lib/quantity.ts";
import type { TestClient } from "../harness.ts";
import { onCluster } from "../on-cluster.ts";
import { kubectl } from "../runtime/kubernetes/kubectl.ts";
import { until } from "../until.ts";
import { ClusterServer, countOf, inTerminal, logOf, logs, objectsOf, reaches, template } from "./cluster.ts";

/** A pod that takes room and does nothing. */
function filler(of: { name: string; namespace: string; cpu: string; memory: string }): string {
  const resources = { cpu: of.cpu, memory: of.memory };
  return JSON.stringify({
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name: of.name, namespace: of.namespace },
    spec: {
      terminationGracePeriodSeconds: 0,
      containers: [
        {
          name: "pause",
          image: "registry.k8s.io/pause:3.6",
          imagePullPolicy: "IfNotPresent",
          resources: { requests: resources, limits: resources },
        },
      ],
    },
  });
}

interface Failure {
  title: string;
  template: ReturnType<typeof template>;
  /** Status and `status_message` that must have been seen on the way. */
  seen: { status: string; message: RegExp }[];
  reason: RegExp;
  /** One line of the cluster's own events. */
  event: RegExp;
  withinMs: number;
}

const SHORT = { IMAGE_PULL_TIMEOUT: "8s", UNSCHEDULABLE_TIMEOUT: "8s" };

const FAILURES: Failure[] = [
  {
    title: "a wrong image",
    template: template("no-image", [], { docker_image: "nosuch:1" }),
    seen: [{ status: "provisioning", message: /^image nosuch:1 cannot be pulled: \S/ }],
    reason: /^image nosuch:1 cannot be pulled: \S/,
    event: /^Failed: Failed to pull image "nosuch:1"/,
    // All of these are made at once, and kubelet may take half a minute to mount the first volumes.
    withinMs: 60_000,
  },
  {
    title: "a container that ends again and again",
    template: template("crashing", ["kill -TERM 1; sleep 1"]),
    seen: [],
    reason: /^The container has ended 3 times, last with exit code 0$/,
    event: /^BackOff: Back-off restarting failed container/,
    withinMs: 90_000,
  },
  {
    title: "a command that runs out of memory",
    template: template("greedy", ["true", "tail /dev/zero"]),
    seen: [],
    reason: /^(ran out of memory \(limit 64Mi\)|Startup command 2 of 2 .*)/,
    event: /^Started/,
    withinMs: 40_000,
  },
  {
    title: "a startup command that fails",
    template: template("failing", ["sleep 4", "echo sorry >&2; exit 7"]),
    seen: [{ status: "installing", message: /^Step 2 of 2: echo sorry >&2; exit 7$/ }],
    reason: /^Startup command 2 of 2 failed with exit code 7: echo sorry >&2; exit 7$/,
    event: /^Started/,
    withinMs: 40_000,
  },
  {
    title: "an image without a shell",
    template: template("no-shell", [], { docker_image: "registry.k8s.io/pause:3.6" }),
    seen: [],
    reason: /^image registry\.k8s\.io\/pause:3\.6 has no \/bin\/sh$/,
    event: /^Failed: .*\/bin\/sh/,
    withinMs: 40_000,
  },
];

onCluster("what goes wrong on a cluster is told in words:", () => {
  let server: ClusterServer;
  let client: TestClient;
  beforeAll(async () => {
    server = await ClusterServer.start({ environment: SHORT });
    client = server.client;
  });
  afterAll(() => server.close(), 150_000);

  for (const failure of FAILURES) {
    test.concurrent(failure.title, async () => {
      const { name } = failure.template;
      await client.post("/api/v1/templates", failure.template, 201);
      // Placement would refuse what no node can ever take, unless the cluster is named and full: it is not.
      const created = await client.post("/api/v1/environments", { name, template: name }, 201);
      const id = String(created.id);
      const history = await reaches(client, id, "error", failure.withinMs);
      const last = history.at(-1);
      expect(last?.message).toMatch(failure.reason);
      for (const { status, message } of failure.seen) {
        const found = history.some((one) => one.status === status && message.test(one.message ?? ""));
        expect(found ? "seen" : history).toBe("seen");
      }
      await logs(client, id, failure.event);
      expect(await logOf(client, id, "system")).toContain(last?.message ?? "");
      const metrics = await client.get(`/api/v1/environments/${id}/metrics`);
      expect(metrics.uptime).toBe(0);
      // Nothing of it runs, and its workspace is kept for a recovery.
      expect(await countOf("pvc", id)).toBe(1);
      await client.delete(`/api/v1/environments/${id}`);
    }, 120_000);
  }

  test.concurrent("a quota that something else in the person's namespace has used up", async () => {
    await client.post("/api/v1/templates", template("small", []), 201);
    const user = await server.process.newUser("ada");
    const { id: userId } = await user.get("/api/v1/users/me");
    const { id } = await user.environment({ name: "one", template: "small" });
    const waited = { Prefer: "wait=60" };
    await user.post(`/api/v1/environments/${id}/stop`, {}, 200, waited);
    const namespace = `devpocket-${userId}`;
    const one = filler({ name: "filler", namespace, cpu: "950m", memory: "64Mi" });
    // The quota is counted anew some time after the environment's pod has gone.
    const taken = () => kubectl(["apply", "-f", "-"], one).catch(() => undefined);
    await until(taken, { timeoutMs: 30_000, intervalMs: 500 });
    const answer = await user.post(`/api/v1/environments/${id}/start`, {}, 200, waited);
    expect(answer).toEqual({ message: "Environment start failed", status: "error" });
    const failed = await user.get(`/api/v1/environments/${id}`);
    expect(failed.status_message).toBe("Quota exceeded (CPU: 200m asked for, 950m of 1 in use)");
    await logs(user, String(id), /^FailedCreate: .*exceeded quota/);
    await kubectl(["delete", "pod", "filler", "-n", namespace, "--grace-period=0", "--force"]);
    const recovered = await user.post(`/api/v1/environments/${id}/recover`, {}, 200, waited);
    expect(recovered.status).toBe("running");
    await user.delete("/api/v1/users/me", 200);
    const gone = async () => (await objectsOf(String(userId))).length === 0;
    await until(gone, { timeoutMs: 90_000, intervalMs: 500 });
  }, 240_000);

  test.concurrent("a pod that no node has room for, which starts once there is room", async () => {
    const large = { cpu: "200m", memory: "2Gi", storage: "64Mi" };
    await client.post("/api/v1/templates", template("large", [], { default_resources: large }), 201);
    const { id } = await client.environment({ name: "large", template: "large" });
    const waited = { Prefer: "wait=60" };
    await client.post(`/api/v1/environments/${id}/stop`, {}, 200, waited);
    // The record of its pod stays for a moment, with what it had requested.
    const pods = ["get", "pods", "-A", "-l", `devpocket.dev/environment-id=${id}`, "-o", "name"];
    await until(async () => (await kubectl(pods)) === "", { timeoutMs: 30_000, intervalMs: 200 });
    const filled = { name: `devpocket-filler-${process.pid}`, namespace: "default" };
    await kubectl(["apply", "-f", "-"], filler({ ...filled, cpu: "10m", memory: await roomBut(2 ** 30) }));
    try {
      await client.post(`/api/v1/environments/${id}/start`);
      const history = await reaches(client, String(id), "error", 40_000);
      const words = "No node has room: 0/1 nodes are available: 1 Insufficient memory.";
      expect(history.at(-1)?.message).toBe(words);
      const waiting = history.filter(({ message }) => message === words).map(({ status }) => status);
      expect(waiting).toContain("provisioning");
      await logs(client, String(id), /^FailedScheduling: .*Insufficient memory/);
    } finally {
      await kubectl(["delete", "pod", filled.name, "-n", "default", "--grace-period=0", "--force"]);
    }
    const recovered = await client.post(`/api/v1/environments/${id}/recover`, {}, 200, waited);
    expect(recovered).toEqual({ message: "Environment recovered successfully", status: "running" });
  }, 240_000);

  // By themselves: what the others must be seen to pass through is short, and more pods at once blur it.
  test("an object that somebody deletes, which is made again", async () => {
    await client.post("/api/v1/templates", template("bereft", []), 201);
    const user = await server.process.newUser("bob");
    const { id: userId } = await user.get("/api/v1/users/me");
    const id = String((await user.environment({ name: "bereft", template: "bereft" })).id);
    const at = ["-n", `devpocket-${userId}`];
    const pods = ["pods", "-l", `devpocket.dev/environment-id=${id}`];
    const [pod] = (await kubectl(["get", ...pods, ...at, "-o", "name"])).split("\n");
    for (const object of [`configmap/env-${id}`, `secret/env-${id}`, "serviceaccount/environment"]) {
      await kubectl(["delete", object, ...at]);
      await kubectl(["delete", ...pods, ...at, "--wait=false"]);
      await reaches(user, id, "provisioning");
      const history = await reaches(user, id, "running", 90_000);
      const told = history.map(({ message }) => message);
      const [kind, name] = object.split("/");
      expect(told).toContain(`${kind} "${name}" is missing in the cluster`);
    }
    expect(await kubectl(["get", ...pods, ...at, "-o", "name"])).not.toBe(pod);
    await user.delete("/api/v1/users/me", 200);
    const gone = async () => (await objectsOf(String(userId))).length === 0;
    await until(gone, { timeoutMs: 90_000, intervalMs: 500 });
  }, 400_000);

  test("a workspace that somebody deletes, in whose place an empty one is made", async () => {
    const { name } = await client.post("/api/v1/templates", template("emptied", []), 201);
    const id = String((await client.environment({ name: "emptied", template: String(name) })).id);
    await inTerminal(client, id, "echo here > file");
    const at = ["-n", `devpocket-${server.userId}`];
    await kubectl(["delete", "pvc", `env-${id}`, ...at, "--wait=false"]);
    await reaches(client, id, "provisioning");
    const history = await reaches(client, id, "running", 120_000);
    const told = history.map(({ message }) => message);
    const deleted = "The workspace's volume was deleted in the cluster";
    expect(told).toContain(`${deleted}; once it is gone, a new, empty one is made`);
    await logs(client, id, /^WorkspaceLost: .*a new, empty one is made/);
    expect(await logOf(client, id, "system")).toContain(
      `WorkspaceLost: ${deleted}: a new, empty one is made`,
    );
    expect(await inTerminal(client, id, "ls")).toBe("");
  }, 240_000);
});

/** The memory that nothing has requested, less what others on the same cluster need to go on. */
async function roomBut(bytes: number): Promise<string> {
  const requests = "{range .items[*].spec.containers[*]}{.resources.requests.memory} {end}";
  const total = await kubectl(["get", "nodes", "-o", "jsonpath={.items[*].status.allocatable.memory}"]);
  const used = await kubectl(["get", "pods", "-A", "-o", `jsonpath=${requests}`]);
  const sum = (text: string) => text.split(" ").reduce((all, one) => all + (parseBytes(one) ?? 0), 0);
  return String(sum(total) - sum(used) - bytes);
}
