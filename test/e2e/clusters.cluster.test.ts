import { afterAll, beforeAll, expect, test } from "bun:test";
import { rmSync } from "node:fs";
import { type TestClient, TestServer, temporaryFolder } from "../harness.ts";
import { onCluster } from "../on-cluster.ts";
import { kubectl } from "../runtime/kubernetes/kubectl.ts";
import { until } from "../until.ts";
import { ApiProxy } from "./api-proxy.ts";
import { asSeen, inTerminal, objectsOf, reaches, seen, template } from "./cluster.ts";

const UNREACHABLE = "The cluster can't be reached; the environment goes on when it is back";

/*
 * Two ways to the one cluster that there is: the server knows no better than that they are two, and one of
 * them can be closed without the other.
 */
onCluster("several clusters", () => {
  const ways = { east: new ApiProxy(), west: new ApiProxy() };
  const options = { dataDir: temporaryFolder(), environment: { LOCAL_RUNTIME: "off" } };
  let server: TestServer;
  let client: TestClient;
  let userId: string;

  beforeAll(async () => {
    server = await TestServer.start(options);
    client = await server.signedIn();
    userId = String((await client.get("/api/v1/users/me")).id);
    await client.post("/api/v1/templates", template("plain", []), 201);
    await client.post("/api/v1/templates", template("slow", ["sleep 5", "echo ran >>runs"]), 201);
    for (const [name, { kubeconfig }] of Object.entries(ways)) {
      const body = { name, provider: "test", region: name, kubeconfig };
      await client.post("/api/v1/clusters", body, 201);
    }
  });

  afterAll(async () => {
    for (const way of Object.values(ways)) way.become("fair");
    const left = await client.list("/api/v1/environments");
    await Promise.all(left.map(({ id }) => client.delete(`/api/v1/environments/${id}`)));
    await until(async () => (await objectsOf(userId)).length === 0, { timeoutMs: 90_000, intervalMs: 500 });
    await server.stop();
    rmSync(options.dataDir, { recursive: true });
    for (const way of Object.values(ways)) way.close();
  }, 120_000);

  async function create(body: Record<string, unknown>): Promise<string> {
    return String((await client.post("/api/v1/environments", body, 201)).id);
  }

  const health = async (name: string) => (await client.get(`/api/v1/clusters/${name}/health`)).status;

  test("an environment is placed with a reason that the audit row gives, and where it is named", async () => {
    const { id, cluster_id } = await client.post(
      "/api/v1/environments",
      { name: "anywhere", template: "plain" },
      201,
    );
    const [row] = await client.list(`/api/v1/audit?target=${id}&action=environment.create`);
    expect(row?.detail).toMatchObject({
      cluster_id,
      placement: expect.stringMatching(/^most room of 2 clusters: \d+m of \S+ CPU and \S+ of \S+ memory/),
    });
    const named = await client.post(
      "/api/v1/environments",
      { name: "there", template: "plain", cluster_id: "west" },
      201,
    );
    expect(named.cluster_id).toBe((await client.get("/api/v1/clusters/west")).id);
    await Promise.all([id, named.id].map((one) => reaches(client, String(one), "running")));
    await Promise.all(
      [id, named.id].map((one) => client.delete(`/api/v1/environments/${one}`, 204, { Prefer: "wait=60" })),
    );
  }, 120_000);

  test("one in maintenance or inactive takes no new environments", async () => {
    for (const status of ["maintenance", "inactive"]) {
      await client.put("/api/v1/clusters/east", { status });
      await client.post("/api/v1/environments", { name: "e", template: "plain", cluster_id: "east" }, 400);
      const west = await client.get("/api/v1/clusters/west");
      const body = { name: `not-${status}`, template: "plain" };
      expect(await client.post("/api/v1/environments", body, 201)).toMatchObject({ cluster_id: west.id });
    }
    await client.put("/api/v1/clusters/east", { status: "active" });
  });

  test("environments of one that can't be reached keep their status, say so, and go on", async () => {
    const on = (name: string, of = "slow") => create({ name, template: of, cluster_id: "east" });
    const [steady, stopped, ending] = await Promise.all([on("steady"), on("stopped"), on("ending")]);
    await Promise.all([steady, stopped, ending].map((id) => reaches(client, id, "running")));
    const installing = await on("installing");
    await reaches(client, installing, "installing");

    ways.east.become("refused");
    await client.post(`/api/v1/environments/${stopped}/stop`);
    await client.delete(`/api/v1/environments/${ending}`);
    for (const [id, status] of [
      [steady, "running"],
      [stopped, "stopping"],
      [installing, "installing"],
    ] as const) {
      const told = async () => (await seen(client, id)).message === UNREACHABLE;
      await until(told, { timeoutMs: 40_000, intervalMs: 200, message: `${status} is not told` });
      expect(await seen(client, id)).toMatchObject({ status });
    }
    expect(await client.get("/api/v1/clusters/east/health")).toMatchObject({
      status: "unhealthy",
      components: expect.arrayContaining([expect.objectContaining({ status: "unhealthy" })]),
    });
    // Nothing new goes there, neither by itself nor where it is named.
    await client.post("/api/v1/environments", { name: "more", template: "plain", cluster_id: "east" }, 503);
    const elsewhere = await client.post("/api/v1/environments", { name: "else", template: "plain" }, 201);
    expect(elsewhere.cluster_id).toBe((await client.get("/api/v1/clusters/west")).id);
    await reaches(client, String(elsewhere.id), "running");

    ways.east.become("fair");
    await Promise.all([
      reaches(client, stopped, "stopped"),
      reaches(client, installing, "running"),
      until(async () => (await seen(client, steady)).message === null, {
        timeoutMs: 60_000,
        intervalMs: 200,
      }),
    ]);
    expect(await health("east")).toBe("healthy");
    expect(asSeen(await client.get(`/api/v1/environments/${steady}`))).toMatchObject({ status: "running" });
    // It was never started again.
    expect(await inTerminal(client, steady, "cat runs")).toBe("ran\n");
    expect(await inTerminal(client, installing, "cat runs")).toBe("ran\n");
    const gone = async () => {
      const label = `devpocket.dev/environment-id=${ending}`;
      return (await kubectl(["get", "all,pvc,cm,secret", "-A", "-l", label, "-o", "name"])) === "";
    };
    await until(gone, { timeoutMs: 60_000, intervalMs: 500 });
  }, 240_000);

  test("a cluster that accepts connections and says nothing counts as one that can't be reached", async () => {
    const id = await create({ name: "silent", template: "plain", cluster_id: "west" });
    await reaches(client, id, "running");
    ways.west.become("silent");
    expect(await health("west")).toBe("unhealthy");
    const told = async () => (await seen(client, id)).message === UNREACHABLE;
    await until(told, { timeoutMs: 40_000, intervalMs: 200 });
    expect(await seen(client, id)).toMatchObject({ status: "running" });
    ways.west.become("fair");
    await until(async () => (await seen(client, id)).message === null, {
      timeoutMs: 60_000,
      intervalMs: 200,
    });
  }, 180_000);

  test("what carries our labels and belongs to no environment is removed and reported, nothing else", async () => {
    const living = (await client.list("/api/v1/environments")).filter(({ status }) => status === "running");
    expect(living.length).toBeGreaterThan(0);
    const [model] = living;
    // As if the server had lost the environments' rows: the labels of a living one's claim under other ids.
    const own = `devpocket.dev/environment-id=${model?.id}`;
    const read = ["get", "pvc", "-A", "-l", own, "-o", "jsonpath={.items[0].metadata}"];
    const { namespace, labels }: { namespace: string; labels: Record<string, string> } = JSON.parse(
      await kubectl(read),
    );
    const strayId = (start: string) => String(model?.id).replace(/^.{4}/, start);
    const strays = STRAYS.map(([start, objects]) => ({
      id: strayId(start),
      objects: objects.map(({ kind, name = `env-${strayId(start)}`, ...rest }) => ({
        apiVersion: "v1",
        kind,
        metadata: {
          namespace,
          name,
          labels: { ...labels, "devpocket.dev/environment-id": strayId(start) },
        },
        ...rest,
      })),
    }));
    for (const { objects } of strays) {
      for (const object of objects) await kubectl(["apply", "-f", "-"], JSON.stringify(object));
    }
    // A server looks when it starts, and soon again at what it suspects.
    await server.kill();
    server = await TestServer.start(options);
    client = await server.signedIn();
    const ids = strays.map(({ id }) => id).join(",");
    const left = ["get", "pvc,cm,secret,svc", "-A", "-l", `devpocket.dev/environment-id in (${ids})`];
    await until(async () => (await kubectl([...left, "-o", "name"])) === "", {
      timeoutMs: 90_000,
      intervalMs: 500,
    });
    const reports = async () => await client.list("/api/v1/audit?action=environment.sweep");
    await until(async () => (await reports()).length === strays.length);
    for (const { target_id, detail } of await reports()) {
      const stray = strays.find(({ id }) => id === target_id);
      const paths = stray?.objects.map(
        ({ kind, metadata }) => `/api/v1/namespaces/${namespace}/${PLURAL[kind]}/${metadata.name}`,
      );
      expect(detail).toMatchObject({ objects: paths });
    }
    for (const { id } of living) expect(await seen(client, String(id))).toMatchObject({ status: "running" });
  }, 180_000);
});

const PLURAL = {
  PersistentVolumeClaim: "persistentvolumeclaims",
  Service: "services",
  ConfigMap: "configmaps",
  Secret: "secrets",
} as const;

/** By the beginning of an environment's id what there is of it, in the order of the report. */
const STRAYS: [start: string, { kind: keyof typeof PLURAL; name?: string; [field: string]: unknown }[]][] = [
  [
    "fffa",
    [
      {
        kind: "PersistentVolumeClaim",
        spec: { accessModes: ["ReadWriteOnce"], resources: { requests: { storage: "64Mi" } } },
      },
      { kind: "ConfigMap" },
    ],
  ],
  ["fffb", [{ kind: "Service", spec: { ports: [{ port: 8080 }] } }]],
  ["fffc", [{ kind: "ConfigMap" }]],
  ["fffd", [{ kind: "Secret" }]],
  ["fffe", [{ kind: "ConfigMap", name: "of-another-name" }]],
];
