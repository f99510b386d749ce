import { expect } from "bun:test";
import { openCluster } from "../../stand-in-cluster.ts";
import type { Table } from "../row.ts";
import { anyId, anyNumber, anyText, anyTime } from "../site.ts";
import type { World } from "../world.ts";

const LIST = "GET /api/v1/clusters";
const CREATE = "POST /api/v1/clusters";
const GET = "GET /api/v1/clusters/{cluster_id}";
const UPDATE = "PUT /api/v1/clusters/{cluster_id}";
const DELETE = "DELETE /api/v1/clusters/{cluster_id}";
const HEALTH = "GET /api/v1/clusters/{cluster_id}/health";

const bodyOf = ({ cluster }: World) => ({
  name: "production-cluster",
  description: "Production Kubernetes cluster",
  provider: "ovh",
  region: "GRA7",
  kubeconfig: Buffer.from(cluster.kubeconfig).toString("base64"),
});

const params = { cluster_id: "production-cluster" };
const local = { cluster_id: "local" };

export const CLUSTERS: Table = [
  [
    "R 865, R 1230, R 2125, E 204, E 366, D clusters, create",
    "an administrator registers one that answers and allows what is needed: 201, the kubeconfig is not shown",
    async (world) => {
      const body = bodyOf(world);
      const { text } = await world.main.call(CREATE, {
        as: world.admin,
        // Placed on only where it is named: this one runs nothing.
        body: { ...body, status: "maintenance" },
        status: 201,
        answer: {
          ...body,
          id: anyId,
          kubeconfig: "[ENCRYPTED]",
          status: "maintenance",
          node_count: 1,
          capacity: {
            total_cpu: "4000m",
            used_cpu: "0m",
            total_memory: "8Gi",
            used_memory: anyText,
            total_storage: null,
            used_storage: anyText,
          },
          created_at: anyTime,
          updated_at: anyTime,
        },
      });
      expect(text).not.toContain(world.cluster.secret);
    },
  ],
  [
    "D clusters",
    "a name in use is 409",
    (world) =>
      world.main.call(CREATE, {
        as: world.admin,
        body: bodyOf(world),
        status: 409,
        answer: { errors: [{ field: "name" }] },
      }),
  ],
  [
    "D create",
    "a kubeconfig that can't be read, or would run programs or read files here, is 400 and says which",
    async (world) => {
      const { main, admin } = world;
      const users = (user: object) =>
        JSON.stringify({ ...JSON.parse(world.cluster.kubeconfig), users: [{ name: "u", user }] });
      for (const [kubeconfig, says] of [
        ["base64_encoded_kubeconfig_content", /kubeconfig/i],
        [users({ exec: { command: "sh" } }), /exec/],
        [users({ "auth-provider": { name: "gcp" } }), /auth-provider/],
        [users({ tokenFile: "/etc/passwd" }), /file/i],
      ] as const) {
        await main.call(CREATE, {
          as: admin,
          body: { ...bodyOf(world), name: "other", kubeconfig },
          status: 400,
          answer: { detail: expect.stringMatching(says) },
        });
      }
    },
  ],
  [
    "R 855, D clusters",
    "a field that is missing or wrong is 422",
    async (world) => {
      for (const wrong of [{ name: "" }, { region: "" }, { kubeconfig: "" }, { status: "gone" }]) {
        const body = { ...bodyOf(world), name: "other", ...wrong };
        await world.main.call(CREATE, { as: world.admin, body, status: 422 });
      }
    },
  ],
  [
    "R 887, R 1911, E 209, D local cluster",
    "the list is an array, newest first; the local cluster is in it from the first start",
    async ({ main, admin }) => {
      const { body } = await main.call(LIST, {
        as: admin,
        status: 200,
        answer: [
          { name: "production-cluster", kubeconfig: "[ENCRYPTED]" },
          { name: "local", provider: "local", kubeconfig: null, status: "active" },
        ],
      });
      expect(body).toHaveLength(2);
    },
  ],
  [
    "R 909, E 214",
    "regions name place, country and provider, the reference's two among them",
    ({ main, admin }) =>
      main.call("GET /api/v1/clusters/regions", {
        as: admin,
        query: { limit: "200" },
        status: 200,
        answer: expect.arrayContaining([
          { name: "GRA7", display_name: "Gravelines 7", country: "France", provider: "ovh" },
          { name: "SBG5", display_name: "Strasbourg 5", country: "France", provider: "ovh" },
        ]),
      }),
  ],
  [
    "D clusters",
    "a region is described by four fields",
    ({ main, admin }) =>
      main.call("GET /api/v1/clusters/regions", {
        as: admin,
        query: { limit: "1" },
        status: 200,
        answer: [{ name: anyText, display_name: anyText, country: anyText, provider: anyText }],
      }),
  ],
  [
    "R 1942, E 219",
    "a cluster is found by id and name; an unknown one is 404",
    async ({ main, admin }) => {
      const { body } = await main.call(GET, { as: admin, params, status: 200, answer: { region: "GRA7" } });
      await main.call(GET, { as: admin, params: { cluster_id: body.id }, status: 200, answer: body });
      const unknown = { as: admin, params: { cluster_id: "0".repeat(24) }, status: 404 };
      await main.call(GET, { ...unknown, answer: { detail: "Cluster not found" } });
      await main.call(UPDATE, { ...unknown, body: {} });
      await main.call(DELETE, unknown);
      await main.call(HEALTH, unknown);
    },
  ],
  [
    "E 225, D clusters, status",
    "name, description, region, status and kubeconfig can be changed; a new kubeconfig is vetted",
    async ({ main, admin, cluster }) => {
      const change = { name: "staging-cluster", description: "Staging", region: "SBG5", status: "inactive" };
      const body = { ...change, kubeconfig: cluster.kubeconfig };
      await main.call(UPDATE, { as: admin, params, body, status: 200, answer: change });
      const renamed = { cluster_id: "staging-cluster" };
      const wrong = { kubeconfig: "not: one" };
      await main.call(UPDATE, { as: admin, params: renamed, body: wrong, status: 400 });
      await main.call(UPDATE, { as: admin, params: renamed, body: { name: "local" }, status: 409 });
      await main.call(UPDATE, { as: admin, params: renamed, body: { status: "gone" }, status: 422 });
      const back = { name: "production-cluster", status: "maintenance" };
      await main.call(UPDATE, { as: admin, params: renamed, body: back, status: 200 });
    },
  ],
  [
    "R 935, R 1964, E 233, D health",
    "health is looked at now: nodes, shares of what is requested, components",
    async ({ main, admin }) => {
      const { body } = await main.call(HEALTH, {
        as: admin,
        params,
        status: 200,
        answer: {
          cluster_id: anyId,
          // It has no storage class.
          status: "unhealthy",
          nodes: 1,
          ready_nodes: 1,
          cpu_usage: 0,
          memory_usage: 0,
          storage_usage: null,
          components: [{ name: "api-server", status: "healthy", message: anyText }, {}, {}],
          last_check: anyTime,
        },
      });
      expect(body.components.map(({ name }: { name: string }) => name)).toEqual([
        "api-server",
        "nodes",
        "storage",
      ]);
    },
  ],
  [
    "D local cluster",
    "the local cluster has health, too, and real figures of its machine",
    ({ main, admin }) =>
      main.call(HEALTH, {
        as: admin,
        params: local,
        status: 200,
        answer: { status: "healthy", nodes: 1, ready_nodes: 1, cpu_usage: anyNumber },
      }),
  ],
  [
    "D health",
    "a cluster that can't be reached is unhealthy, says why, and nothing else is known of it",
    async ({ main, admin, cluster }) => {
      const dead = await unreachable();
      const registered = await main.call(CREATE, {
        as: admin,
        body: {
          name: "dead",
          provider: "ovh",
          region: "x",
          kubeconfig: cluster.kubeconfig,
          status: "inactive",
        },
        status: 201,
      });
      expect(registered.body.description).toBeNull();
      await main.call(UPDATE, {
        as: admin,
        params: { cluster_id: "dead" },
        body: { kubeconfig: cluster.kubeconfig.replace(/127\.0\.0\.1:\d+/, dead) },
        status: 400,
        answer: { detail: anyText },
      });
      await main.call(DELETE, { as: admin, params: { cluster_id: "dead" }, status: 204 });
    },
  ],
  [
    "E 225, E 231, D clusters",
    "while environments live on a cluster its kubeconfig can't lead to another: 409, and it can't be deleted",
    async ({ main, admin }) => {
      const here = { as: admin, params };
      await main.call(UPDATE, { ...here, body: { status: "active" }, status: 200 });
      const { body: environment } = await main.call("POST /api/v1/environments", {
        as: admin,
        body: { name: "settled", template: "shell", cluster_id: params.cluster_id },
        status: 201,
      });
      const other = openCluster({ uid: "another" });
      await main.call(UPDATE, {
        ...here,
        body: { kubeconfig: other.kubeconfig },
        status: 409,
        answer: { errors: [{ field: "kubeconfig", code: "another_cluster" }] },
      });
      await main.call(DELETE, { ...here, status: 409, answer: { detail: anyText } });
      await main.call("DELETE /api/v1/environments/{environment_id}", {
        as: admin,
        params: { environment_id: environment.id },
        status: 204,
      });
      await main.call(UPDATE, { ...here, body: { status: "maintenance" }, status: 200 });
    },
  ],
  [
    "D status",
    "no new environments where the status is not active: 400",
    ({ main, ada }) =>
      main.call("POST /api/v1/environments", {
        as: ada,
        body: { name: "elsewhere", template: "shell", cluster_id: "production-cluster" },
        status: 400,
        answer: { errors: [{ field: "cluster_id" }] },
      }),
  ],
  [
    "D local cluster",
    "the local cluster can't be deleted: 409",
    ({ main, admin }) =>
      main.call(DELETE, { as: admin, params: local, status: 409, answer: { detail: anyText } }),
  ],
  [
    "E 231, D clusters",
    "deleting is 204; force is true or false",
    async ({ main, admin }) => {
      await main.call(DELETE, { as: admin, params, query: { force: "maybe" }, status: 422 });
      await main.call(DELETE, { as: admin, params, query: { force: "true" }, status: 204 });
      await main.call(GET, { as: admin, params, status: 404 });
    },
  ],
];

/** An address of this machine where nothing listens. */
async function unreachable(): Promise<string> {
  const server = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: () => new Response() });
  const address = `127.0.0.1:${server.port}`;
  await server.stop(true);
  return address;
}
