import { afterAll, afterEach, beforeAll, expect, test } from "bun:test";
import { canBreakCluster, fault, onCluster } from "../on-cluster.ts";
import { until } from "../until.ts";
import { ClusterServer, countOf, reaches, seen } from "./cluster.ts";
import { addTemplate, allAreWhereTheyShouldBe, inEveryPassingState, type Wanted } from "./passing-states.ts";

const OUTAGE_MS = 30_000;

onCluster("our server killed with SIGKILL", () => {
  let server: ClusterServer;
  beforeAll(async () => {
    server = await ClusterServer.start();
    await addTemplate(server.client);
  });
  afterAll(() => server.close(), 150_000);

  test("with environments in every passing state: each ends where its owner wants it, nothing twice", async () => {
    const wanted = await inEveryPassingState(server.client, "kill", () => server.kill());
    await server.again();
    // Once more, in the middle of what it has taken up again.
    await Bun.sleep(700);
    await server.kill();
    await server.again();
    await allAreWhereTheyShouldBe(server.client, wanted);
    await eachIsThereOnce(wanted);
  }, 300_000);
});

onCluster(
  "a cluster that breaks",
  () => {
    let server: ClusterServer;
    beforeAll(async () => {
      server = await ClusterServer.start();
      await addTemplate(server.client);
    });
    // What is left would only slow down the next.
    afterEach(async () => {
      const left = await server.client.list("/api/v1/environments?limit=200");
      await Promise.all(left.map(({ id }) => server.client.delete(`/api/v1/environments/${id}`)));
    });
    afterAll(() => server.close(), 150_000);

    test("its API server is stopped for 30 s with environments in every passing state", async () => {
      const { client } = server;
      let afterwards: Promise<void> | undefined;
      const wanted = await inEveryPassingState(client, "api", async () => {
        await fault("apiserver-stop");
        afterwards = Bun.sleep(OUTAGE_MS).then(() => fault("apiserver-start"));
      });
      try {
        const [steady = ""] = [...wanted].find(([, { name }]) => name === "steady") ?? [];
        const told = async () =>
          (await seen(client, steady)).message?.startsWith("The cluster can't be reached");
        await until(told, { timeoutMs: OUTAGE_MS, intervalMs: 200, message: "nobody is told of the outage" });
        expect(await seen(client, steady)).toMatchObject({ status: "running" });
        // An owner need not know: what is asked for meanwhile is done when it can be.
        await client.post(`/api/v1/environments/${steady}/restart`);
        wanted.set(steady, { name: "steady", status: "running", runs: 2 });
      } finally {
        await afterwards;
      }
      await allAreWhereTheyShouldBe(client, wanted);
      await eachIsThereOnce(wanted);
    }, 300_000);

    test("its connections are cut every two seconds while environments come and go", async () => {
      const { client } = server;
      const cutting = new AbortController();
      const cut = (async () => {
        while (!cutting.signal.aborted) {
          await fault("connections-cut");
          await Bun.sleep(2000);
        }
      })();
      const life = async (name: string) => {
        const { id } = await client.post("/api/v1/environments", { name, template: "counting" }, 201);
        await reaches(client, String(id), "running", 120_000);
        await client.post(`/api/v1/environments/${id}/stop`);
        await reaches(client, String(id), "stopped", 60_000);
        await client.post(`/api/v1/environments/${id}/start`);
        await reaches(client, String(id), "running", 120_000);
        return String(id);
      };
      let ids: string[];
      try {
        ids = await Promise.all(["cut-1", "cut-2", "cut-3", "cut-4"].map(life));
        await client.delete(`/api/v1/environments/${ids[3]}`);
      } finally {
        cutting.abort();
        await cut;
      }
      const wanted = new Map<string, Wanted>(
        ids.slice(0, 3).map((id, index) => [id, { name: `cut-${index + 1}`, status: "running", runs: 2 }]),
      );
      await allAreWhereTheyShouldBe(client, wanted);
      await eachIsThereOnce(wanted);
    }, 300_000);

    test("its node's kubelet is stopped until the node counts as lost", async () => {
      const { client } = server;
      let wanted = new Map<string, Wanted>();
      wanted = await inEveryPassingState(client, "node", () => fault("kubelet-stop"));
      try {
        const lost = async () => {
          const health = await client.get("/api/v1/clusters/default/health");
          return health.ready_nodes === 0;
        };
        await until(lost, { timeoutMs: 90_000, intervalMs: 1000, message: "the node is not lost" });
        const [steady = ""] = [...wanted].find(([, { name }]) => name === "steady") ?? [];
        expect(await seen(client, steady)).toMatchObject({ status: "running" });
      } finally {
        await fault("kubelet-start");
      }
      await allAreWhereTheyShouldBe(client, wanted, 180_000);
      await eachIsThereOnce(wanted);
    }, 400_000);
  },
  canBreakCluster,
);

/** One of everything for what runs, no pod for what is stopped, nothing at all for what was deleted. */
async function eachIsThereOnce(wanted: Map<string, Wanted>): Promise<void> {
  for (const [id, { name, status }] of wanted) {
    const counts = async () => ({
      deployments: await countOf("deployments", id),
      claims: await countOf("pvc", id),
      pods: await countOf("pods", id),
    });
    const kept = status === "terminated" ? 0 : 1;
    const expected = { deployments: kept, claims: kept, pods: status === "running" ? 1 : 0 };
    let found = {};
    const there = async () => {
      found = await counts();
      return Bun.deepEquals(found, expected);
    };
    await until(there, {
      timeoutMs: 90_000,
      intervalMs: 500,
      message: () => `${name} (${status}) has ${JSON.stringify(found)}`,
    });
  }
}
