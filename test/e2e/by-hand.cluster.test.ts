import { afterAll, beforeAll, expect, test } from "bun:test";
import type { TestClient } from "../harness.ts";
import { onCluster } from "../on-cluster.ts";
import { kubectl } from "../runtime/kubernetes/kubectl.ts";
import { until } from "../until.ts";
import { ClusterServer, countOf, logs, objectsOf, reaches, type Seen, seen, template } from "./cluster.ts";

/** Restored by a watch: well before the minute after which everything that runs is looked at anyway. */
const SOON_MS = 15_000;

onCluster("what somebody changes in the cluster by hand is changed back:", () => {
  let server: ClusterServer;
  let user: TestClient;
  let userId: string;
  let id: string;
  let at: string[];
  beforeAll(async () => {
    server = await ClusterServer.start();
    await server.client.post("/api/v1/templates", template("edited", []), 201);
    user = await server.process.newUser("eve");
    userId = String((await user.get("/api/v1/users/me")).id);
    id = String((await user.environment({ name: "edited", template: "edited" })).id);
    at = ["-n", `devpocket-${userId}`];
  }, 120_000);
  afterAll(async () => {
    await user.delete("/api/v1/users/me", 200);
    const gone = async () => (await objectsOf(userId)).length === 0;
    await until(gone, { timeoutMs: 90_000, intervalMs: 500 });
    await server.close();
  }, 150_000);

  const deployment = async (path: string) =>
    kubectl(["get", "deployment", `env-${id}`, ...at, "-o", `jsonpath={${path}}`]);

  /** Collects what is seen of the environment until `isBack`, with the time that allows. */
  async function untilBack(isBack: () => Promise<boolean>, timeoutMs: number): Promise<Seen[]> {
    const history: Seen[] = [];
    const look = async () => {
      const now = await seen(user, id);
      if (JSON.stringify(now) !== JSON.stringify(history.at(-1))) history.push(now);
    };
    let looking = true;
    const watching = (async () => {
      while (looking) {
        await look();
        await Bun.sleep(10);
      }
    })();
    try {
      await until(isBack, { timeoutMs, intervalMs: 200, message: () => JSON.stringify(history) });
    } finally {
      looking = false;
      await watching;
    }
    return history;
  }

  test("scaled to 0, it is started again, and its owner told why", async () => {
    await kubectl(["scale", "deployment", `env-${id}`, ...at, "--replicas=0"]);
    await reaches(user, id, "provisioning");
    const history = await reaches(user, id, "running", 60_000);
    expect(history.at(-1)).toMatchObject({ message: null });
    await logs(user, id, /^Somebody has stopped it in the cluster; it is started again$/);
    expect(await deployment(".spec.replicas")).toBe("1");
  }, 120_000);

  test("scaled to 2, it is one again and runs on all the while", async () => {
    const names = () =>
      kubectl(["get", "pods", ...at, "-l", `devpocket.dev/environment-id=${id}`, "-o", "name"]);
    // The record of the one before stays for a moment.
    await until(async () => !(await names()).includes("\n"), { timeoutMs: 30_000, intervalMs: 200 });
    const before = await names();
    await kubectl(["scale", "deployment", `env-${id}`, ...at, "--replicas=2"]);
    const one = async () => (await deployment(".spec.replicas")) === "1" && (await countOf("pods", id)) === 1;
    const history = await untilBack(one, SOON_MS);
    expect(new Set(history.map(({ status }) => status))).toEqual(new Set(["running"]));
    await logs(user, id, /^Somebody has scaled it to 2 in the cluster; it is changed back$/);
    await until(async () => (await names()) === before, { timeoutMs: 30_000, intervalMs: 200 });
    await until(async () => (await seen(user, id)).message === null);
  }, 120_000);

  test.each([
    ["image", ".image", { image: "debian:11" }],
    ["resources", ".resources.limits.cpu", { resources: { limits: { cpu: "300m" } } }],
    ["resources", ".resources.limits.memory", { resources: { limits: { memory: null } } }],
  ])(
    "with another %s (%s), it gets back its own",
    async (what, path, change) => {
      const field = `.spec.template.spec.containers[0]${path}`;
      const before = await deployment(field);
      const containers = [{ name: "environment", ...change }];
      const patch = JSON.stringify({ spec: { template: { spec: { containers } } } });
      await kubectl(["patch", "deployment", `env-${id}`, ...at, "-p", patch]);
      const own = async () => (await deployment(field)) === before;
      await untilBack(own, SOON_MS);
      await logs(
        user,
        id,
        new RegExp(`^Somebody has changed its ${what} in the cluster; it is changed back$`),
      );
      const history = await reaches(user, id, "running", 60_000);
      expect(history.at(-1)).toMatchObject({ message: null });
      const images = ["get", "pods", ...at, "-o", "jsonpath={.items[*].spec.containers[*].image}"];
      expect(new Set((await kubectl(images)).split(" "))).toEqual(new Set(["debian:12"]));
    },
    120_000,
  );

  test("paused and with a rolling update, it gets new containers all the same when its owner restarts it", async () => {
    const change = { spec: { paused: true, strategy: { type: "RollingUpdate" } } };
    await kubectl(["patch", "deployment", `env-${id}`, ...at, "-p", JSON.stringify(change)]);
    const answer = await user.post(`/api/v1/environments/${id}/restart`, {}, 200, { Prefer: "wait=60" });
    expect(answer.status).toBe("running");
    expect(await deployment(".spec.strategy")).toBe('{"type":"Recreate"}');
    expect(await deployment(".spec.paused")).toBe("");
  }, 120_000);

  test.each([
    ["networkpolicy", { spec: { egress: [{}], ingress: [{}] } }],
    ["networkpolicy", { spec: { podSelector: { matchLabels: { nobody: "has-it" } } } }],
    ["networkpolicy", { metadata: { labels: { "devpocket.dev/server": null } } }],
    ["limitrange", { spec: { limits: [{ type: "Container", default: { cpu: "9" } }] } }],
    ["resourcequota", { spec: { hard: { "limits.cpu": "999" } } }],
  ])(
    "the %s of its namespace, edited (%j) and deleted",
    async (kind, change) => {
      const object = [kind, "devpocket", ...at];
      const now = () =>
        kubectl(["get", ...object, "-o", "jsonpath={.metadata.labels} {.spec}"]).catch(() => "");
      const before = await now();
      const back = async () => (await now()) === before;
      await kubectl(["patch", ...object, "--type=merge", "-p", JSON.stringify(change)]);
      const history = await untilBack(back, SOON_MS);
      await kubectl(["delete", ...object]);
      history.push(...(await untilBack(back, SOON_MS)));
      expect(new Set(history.map(({ status }) => status))).toEqual(new Set(["running"]));
      await logs(user, id, new RegExp(`^${kind} "devpocket" is missing in the cluster$`));
      await until(async () => (await seen(user, id)).message === null);
    },
    120_000,
  );

  test.each(["policy", "resources"])(
    "its %s, changed while no server ran",
    async (what) => {
      const field = ".spec.template.spec.containers[0].resources.limits.cpu";
      const policy = ["networkpolicy", "devpocket", ...at];
      await server.kill();
      if (what === "policy") await kubectl(["delete", ...policy]);
      else {
        const containers = [{ name: "environment", resources: { limits: { cpu: "400m" } } }];
        const patch = JSON.stringify({ spec: { template: { spec: { containers } } } });
        await kubectl(["patch", "deployment", `env-${id}`, ...at, "-p", patch]);
      }
      await server.again();
      const isBack = async () =>
        what === "policy"
          ? (await kubectl(["get", ...policy, "-o", "name"]).catch(() => "")) !== ""
          : (await deployment(field)) === "200m";
      // What the watches have not told of is found when everything that runs is looked at: once a minute.
      await until(isBack, { timeoutMs: 75_000, intervalMs: 500 });
      user = await server.process.signedIn("eve", "eve's long password");
    },
    120_000,
  );
});
