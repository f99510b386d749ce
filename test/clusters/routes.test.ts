import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { randomBytes } from "node:crypto";
import { eq } from "drizzle-orm";
import { type CapacityBook, createCapacityBook } from "../../src/clusters/capacity.ts";
import type { GivenUp } from "../../src/clusters/clusters.ts";
import { ensureLocalCluster } from "../../src/clusters/local.ts";
import { createClusterRoutes } from "../../src/clusters/routes.ts";
import { type ClusterRuntimes, createClusterRuntimes } from "../../src/clusters/runtimes.ts";
import { createVault } from "../../src/clusters/vault.ts";
import { inTransaction } from "../../src/db/open.ts";
import { clusters, type EnvironmentStatus, environments, templates, users } from "../../src/db/schema.ts";
import { AppError } from "../../src/errors.ts";
import { type Capacity, type Runtime, RuntimeUnreachable } from "../../src/runtime/runtime.ts";
import { seedTemplates } from "../../src/templates/templates.ts";
import { type Accounts, openAccounts } from "../auth/setup.ts";
import { environmentRow } from "../rows.ts";
import { unused, unusedRuntime } from "../runtime/unused.ts";
import { signInBoth } from "../signed-in.ts";

/*
 * The API over a cluster whose answers the test decides on: here it is a Runtime that knows its capacity
 * and nothing else. A real cluster has its own tests.
 */

const GIB = 2 ** 30;
const CAPACITY: Capacity = {
  nodes: 3,
  readyNodes: 3,
  totalCpuMillis: 8000,
  usedCpuMillis: 3616,
  totalMemoryBytes: 32 * GIB,
  usedMemoryBytes: 8 * GIB,
  totalStorageBytes: null,
  usedStorageBytes: null,
  components: [{ name: "api-server", status: "healthy", message: "API server is responsive" }],
};

function kubeconfig(token: string): string {
  return `
current-context: c
contexts: [{name: c, context: {cluster: c, user: u}}]
clusters: [{name: c, cluster: {server: "https://192.0.2.1"}}]
users: [{name: u, user: {token: ${token}}}]`;
}

let accounts: Accounts;
let user: string;
let admin: string;
let runtimes: ClusterRuntimes;
let book: CapacityBook;
let vetting: (reduced: string) => Promise<string>;
let seen: () => Promise<Capacity>;
const opened: string[] = [];
const closed: string[] = [];
const givenUp: GivenUp[] = [];
const vault = createVault([randomBytes(32)]);

function clusterRuntime(token: string): Runtime {
  return unusedRuntime({ capacity: () => seen(), close: async () => void closed.push(token) });
}

beforeAll(async () => {
  accounts = openAccounts();
  const { db, log, now, guard } = accounts;
  inTransaction(db, (tx) => {
    ensureLocalCluster(tx, now());
    seedTemplates(tx, now());
  });
  const local = clusterRuntime("local");
  runtimes = createClusterRuntimes({
    db,
    vault,
    log,
    localRuntime: () => local,
    makeKubernetesRuntime: (reduced) => clusterRuntime(JSON.parse(reduced).users[0].user.token),
    onOpen: (_runtime, id) => void opened.push(id),
  });
  book = createCapacityBook({ db, runtimeOf: runtimes.of, now, log, timeoutMs: 200 });
  accounts.app.route(
    "/",
    createClusterRoutes({
      db,
      now,
      guard,
      vault,
      runtimes,
      capacity: book,
      localEnabled: true,
      vet: (reduced) => vetting(reduced),
      onEnvironmentsGivenUp: (changes) => void givenUp.push(...changes),
    }),
  );
  ({ user, admin } = await signInBoth(accounts));
});
afterAll(() => accounts.close());

beforeEach(() => {
  vetting = async () => "uid-1";
  seen = async () => CAPACITY;
});

const call = (method: string, path: string, body?: unknown, token: string | null = admin) =>
  accounts.call(method, `/api/v1/clusters${path}`, { ...(body ? { body } : {}), ...(token && { token }) });

const OVH = { provider: "ovh", region: "GRA7" };

async function create(name: string, more: Record<string, unknown> = {}) {
  return call("POST", "", { name, ...OVH, kubeconfig: kubeconfig(`token-of-${name}`), ...more });
}

function addEnvironment(
  clusterId: string,
  status: EnvironmentStatus,
  tornDownAt: number | null = null,
): string {
  const { db } = accounts;
  const template = db.select().from(templates).limit(1).get();
  const owner = db.select().from(users).limit(1).get();
  const row = environmentRow({
    userId: owner?.id ?? "",
    clusterId,
    templateId: template?.id ?? "",
    desired: status === "terminated" ? "terminated" : "running",
    status,
    terminatedAt: status === "terminated" ? 1 : null,
    tornDownAt,
  });
  db.insert(environments).values(row).run();
  return row.id;
}

describe("who may", () => {
  test.each([
    ["GET", ""],
    ["POST", ""],
    ["GET", "/regions"],
    ["GET", "/local"],
    ["PUT", "/local"],
    ["DELETE", "/local"],
    ["GET", "/local/health"],
  ])("%s %p: administrators only", async (method, path) => {
    const body = method === "POST" || method === "PUT" ? {} : undefined;
    expect((await call(method, path, body, null)).status).toBe(401);
    expect((await call(method, path, body, user)).status).toBe(403);
  });
});

describe("creating", () => {
  test("gives the cluster with its real figures, and its kubeconfig to nobody", async () => {
    const answer = await create("production-cluster", { description: "Production Kubernetes cluster" });
    expect(answer.status).toBe(201);
    expect(answer.body).toEqual({
      id: expect.stringMatching(/^[0-9a-f]{24}$/),
      name: "production-cluster",
      description: "Production Kubernetes cluster",
      provider: "ovh",
      region: "GRA7",
      kubeconfig: "[ENCRYPTED]",
      status: "active",
      node_count: 3,
      capacity: {
        total_cpu: "8000m",
        used_cpu: "3616m",
        total_memory: "32Gi",
        used_memory: "8Gi",
        total_storage: null,
        used_storage: null,
      },
      created_at: expect.stringMatching(/Z$/),
      updated_at: expect.stringMatching(/Z$/),
    });
    expect(opened).toContain(answer.body.id);
    expect((await call("GET", "/production-cluster")).body).toEqual(answer.body);
    expect((await call("GET", `/${answer.body.id}`)).body).toEqual(answer.body);
  });

  test("keeps the kubeconfig sealed, and out of the log and the audit", () => {
    const row = accounts.db.select().from(clusters).where(eq(clusters.name, "production-cluster")).get();
    expect(row?.kubeconfig).toStartWith("v1.");
    expect(vault.open(row?.kubeconfig ?? "", row?.id ?? "")).toContain("token-of-production-cluster");
    const traces = JSON.stringify([accounts.auditRows(), accounts.logged]);
    expect(traces).toContain("cluster.create");
    expect(traces).not.toContain("token-of");
  });

  test("takes base64", async () => {
    const encoded = Buffer.from(kubeconfig("encoded")).toString("base64");
    expect((await create("encoded", { kubeconfig: encoded, status: "maintenance" })).body.status).toBe(
      "maintenance",
    );
  });

  test.each(["production-cluster", "local"])(
    "the name %s is in use, which is said before the cluster is asked",
    async (name) => {
      vetting = unused;
      const answer = await create(name);
      expect(answer.status).toBe(409);
      expect(answer.body.errors[0]).toMatchObject({ field: "name", code: "duplicate" });
    },
  );

  test("whoever is no administrator any more when vetting has ended keeps nothing", async () => {
    const setRole = (role: "admin" | "user") =>
      accounts.db.update(users).set({ role }).where(eq(users.username, "root")).run();
    vetting = async () => {
      setRole("user");
      return "uid-1";
    };
    expect((await create("demoted")).status).toBe(403);
    setRole("admin");
    expect((await call("GET", "/demoted")).status).toBe(404);
  });

  test("what vetting refuses is not kept", async () => {
    vetting = async () => {
      throw new AppError("invalid", "DevPocket may not create namespaces there");
    };
    const answer = await create("unfit");
    expect(answer).toMatchObject({
      status: 400,
      body: { detail: "DevPocket may not create namespaces there" },
    });
    expect((await create("unfit", { kubeconfig: "hello" })).status).toBe(400);
    expect((await call("GET", "/unfit")).status).toBe(404);
  });

  test("a cluster that is slow to be measured does not hold up the answer for long", async () => {
    seen = () => new Promise(() => {});
    const answer = await create("slow");
    expect(answer).toMatchObject({ status: 201, body: { node_count: null, capacity: { total_cpu: null } } });
  });

  test.each([
    ["name", { name: "" }],
    ["name", { name: "-x" }],
    ["name", { name: "0123456789abcdef01234567" }],
    ["name", { name: undefined }],
    ["provider", { provider: "local" }],
    ["provider", { provider: "" }],
    ["region", { region: undefined }],
    ["kubeconfig", { kubeconfig: "" }],
    ["kubeconfig", { kubeconfig: undefined }],
    ["status", { status: "healthy" }],
  ])("%s: %j is 422", async (field, wrong) => {
    const answer = await create("wrong", wrong);
    expect(answer.status).toBe(422);
    expect(answer.body.errors[0].field).toBe(field);
  });
});

describe("looking", () => {
  test("lists newest first, the local one among them", async () => {
    const answer = await call("GET", "");
    expect(answer.body.map(({ name }: { name: string }) => name)).toEqual([
      "slow",
      "encoded",
      "production-cluster",
      "local",
    ]);
    expect(answer.headers.get("x-total-count")).toBe("4");
    const page = await call("GET", "?limit=1&offset=3");
    expect(page.body).toMatchObject([
      {
        name: "local",
        provider: "local",
        region: "local",
        kubeconfig: null,
        status: "active",
        node_count: 1,
      },
    ]);
  });

  test.each(["nope", "000000000000000000000000"])("%s is 404", async (ref) => {
    for (const [method, path, body] of [
      ["GET", "", undefined],
      ["PUT", "", {}],
      ["DELETE", "", undefined],
      ["GET", "/health", undefined],
    ] as const) {
      expect(await call(method, `/${ref}${path}`, body)).toMatchObject({
        status: 404,
        body: { detail: "Cluster not found" },
      });
    }
  });

  test("regions are the well-known ones and those in use", async () => {
    await create("elsewhere", { region: "moon-1", provider: "nasa" });
    const answer = await call("GET", "/regions");
    expect(answer.body.slice(0, 2)).toEqual([
      { name: "GRA7", display_name: "Gravelines 7", country: "France", provider: "ovh" },
      { name: "SBG5", display_name: "Strasbourg 5", country: "France", provider: "ovh" },
    ]);
    expect(answer.body).toContainEqual({
      name: "moon-1",
      display_name: "moon-1",
      country: null,
      provider: "nasa",
    });
    expect(answer.body.filter(({ name }: { name: string }) => name === "GRA7")).toHaveLength(1);
    expect(answer.headers.get("x-total-count")).toBe(String(answer.body.length));
  });
});

describe("health", () => {
  const health = async () => (await call("GET", "/production-cluster/health")).body;

  test("has the figures of this moment", async () => {
    expect(await health()).toEqual({
      cluster_id: expect.any(String),
      status: "healthy",
      nodes: 3,
      ready_nodes: 3,
      cpu_usage: 45.2,
      memory_usage: 25,
      storage_usage: null,
      components: CAPACITY.components,
      last_check: expect.stringMatching(/Z$/),
    });
  });

  const part = (status: "healthy" | "degraded" | "unhealthy") => ({ name: "x", status, message: "" });
  test.each<[string, string, Partial<Capacity>]>([
    ["a node is not ready", "degraded", { readyNodes: 2 }],
    ["no node is ready", "unhealthy", { readyNodes: 0 }],
    ["there is no node", "unhealthy", { nodes: 0, readyNodes: 0 }],
    ["a part is degraded", "degraded", { components: [part("healthy"), part("degraded")] }],
    ["a part is unhealthy", "unhealthy", { components: [part("degraded"), part("unhealthy")] }],
  ])("%s: %s", async (_what, status, more) => {
    seen = async () => ({ ...CAPACITY, ...more });
    expect((await health()).status).toBe(status);
  });

  test("an unreachable cluster is an answer, and nothing is made up", async () => {
    seen = async () => {
      throw new RuntimeUnreachable("The cluster can't be reached: connection refused");
    };
    expect(await health()).toMatchObject({
      status: "unhealthy",
      nodes: null,
      ready_nodes: null,
      cpu_usage: null,
      memory_usage: null,
      components: [
        {
          name: "api-server",
          status: "unhealthy",
          message: "The cluster can't be reached: connection refused",
        },
      ],
    });
    const { body } = await call("GET", "/production-cluster");
    expect(body).toMatchObject({ node_count: 3, capacity: { used_cpu: null } });
  });

  test("so is one that hangs, and one whose failure nobody thought of", async () => {
    seen = () => new Promise(() => {});
    expect((await health()).components[0].message).toContain("did not answer within");
    seen = async () => unused();
    expect((await health()).components[0].message).toBe("The cluster could not be measured");
  });
});

describe("changing", () => {
  test("changes what is given and nothing else; the kubeconfig is vetted and its runtime made anew", async () => {
    const before = (await call("GET", "/production-cluster")).body;
    const vetted: string[] = [];
    vetting = async (reduced) => {
      vetted.push(reduced);
      return "uid-1";
    };
    closed.length = 0;
    const answer = await call("PUT", `/${before.id}`, { region: "SBG5", kubeconfig: kubeconfig("renewed") });
    expect(answer.status).toBe(200);
    expect(answer.body).toMatchObject({
      ...before,
      region: "SBG5",
      capacity: { used_cpu: "3616m" },
      updated_at: expect.any(String),
    });
    expect(vetted).toEqual([expect.stringContaining("renewed")]);
    expect(closed).toEqual(["token-of-production-cluster"]);
    expect(accounts.auditRows().at(-1)).toMatchObject({
      action: "cluster.update",
      detail: { fields: ["region", "kubeconfig"] },
    });
  });

  test("what an answer shows can be sent back whole", async () => {
    vetting = unused;
    const before = (await call("GET", "/production-cluster")).body;
    const answer = await call("PUT", "/production-cluster", { ...before, description: "Again" });
    expect(answer.body).toMatchObject({ description: "Again", region: "SBG5" });
  });

  test("a kubeconfig that vetting refuses changes nothing", async () => {
    vetting = async () => {
      throw new AppError("invalid", "no");
    };
    expect(
      (await call("PUT", "/production-cluster", { region: "X", kubeconfig: kubeconfig("bad") })).status,
    ).toBe(400);
    expect((await call("GET", "/production-cluster")).body.region).toBe("SBG5");
  });

  test("a kubeconfig that leads to another cluster is refused while environments live there", async () => {
    const { id } = (await create("moving")).body;
    const living = addEnvironment(id, "stopped");
    const change = (token: string) =>
      call("PUT", "/moving", { region: token, kubeconfig: kubeconfig(token) });
    const kept = () => {
      const row = accounts.db.select().from(clusters).where(eq(clusters.id, id)).get();
      return [row?.uid, row?.region, vault.open(row?.kubeconfig ?? "", id).match(/"token":"(.*?)"/)?.[1]];
    };
    expect((await change("same")).status).toBe(200);
    vetting = async () => "uid-2";
    expect(await change("other")).toMatchObject({
      status: 409,
      body: {
        detail:
          "The kubeconfig leads to another cluster, and 1 environment lives on this one: delete them first",
        errors: [{ field: "kubeconfig", code: "another_cluster" }],
      },
    });
    expect(kept()).toEqual(["uid-1", "same", "same"]);
    accounts.db.update(environments).set({ tornDownAt: 5 }).where(eq(environments.id, living)).run();
    expect((await change("other")).status).toBe(200);
    expect(kept()).toEqual(["uid-2", "other", "other"]);
    await call("DELETE", "/moving");
  });

  test("a name that is in use is refused", async () => {
    expect((await call("PUT", "/encoded", { name: "slow" })).status).toBe(409);
    expect((await call("PUT", "/encoded", { name: "local" })).status).toBe(409);
    expect((await call("PUT", "/encoded", { name: "renamed" })).body.name).toBe("renamed");
  });

  test("the local cluster can be taken out of service, not renamed and not given a kubeconfig", async () => {
    expect((await call("PUT", "/local", { status: "maintenance" })).body.status).toBe("maintenance");
    expect((await call("PUT", "/local", { name: "mine" })).status).toBe(400);
    expect((await call("PUT", "/local", { kubeconfig: kubeconfig("x") })).status).toBe(400);
    expect((await call("PUT", "/local", { name: "local", status: "active" })).body.status).toBe("active");
  });
});

describe("deleting", () => {
  test("the local cluster: never", async () => {
    expect((await call("DELETE", "/local")).status).toBe(409);
    expect((await call("DELETE", "/local?force=true")).status).toBe(409);
  });

  test("not while environments live there, those being torn down included", async () => {
    const { id } = (await create("busy")).body;
    const ids = [addEnvironment(id, "running"), addEnvironment(id, "terminated")];
    const answer = await call("DELETE", "/busy");
    expect(answer).toMatchObject({
      status: 409,
      body: { detail: "2 environments live on this cluster: delete them first, or force it" },
    });
    for (const one of ids)
      accounts.db
        .update(environments)
        .set({ status: "terminated", tornDownAt: 5 })
        .where(eq(environments.id, one))
        .run();
    closed.length = 0;
    expect((await call("DELETE", "/busy")).status).toBe(204);
    expect(closed).toEqual(["token-of-busy"]);
    expect((await call("GET", "/busy")).status).toBe(404);
    expect(() => runtimes.of(id)).toThrow(RuntimeUnreachable);
    expect(accounts.db.select().from(environments).where(eq(environments.clusterId, id)).all()).toHaveLength(
      2,
    );
  });

  test("with force, its environments end with it", async () => {
    const { id } = (await create("lost")).body;
    const running = addEnvironment(id, "running");
    const ending = addEnvironment(id, "terminated");
    const gone = addEnvironment(id, "terminated", 5);
    expect((await call("DELETE", "/lost?force=maybe")).status).toBe(422);
    expect((await call("DELETE", "/lost?force=true")).status).toBe(204);
    expect(givenUp).toMatchObject([
      { before: { id: running, status: "running" }, after: { id: running, status: "terminated" } },
      { before: { id: ending, status: "terminated" }, after: { id: ending, status: "terminated" } },
    ]);
    for (const { before, after } of givenUp) expect(after.generation).toBe(before.generation + 1);
    const row = (one: string) =>
      accounts.db.select().from(environments).where(eq(environments.id, one)).get();
    expect(row(running)).toMatchObject({
      status: "terminated",
      desired: "terminated",
      statusMessage: 'Its cluster "lost" was removed',
      terminatedAt: expect.any(Number),
      tornDownAt: expect.any(Number),
    });
    expect(row(ending)).toMatchObject({ terminatedAt: 1, tornDownAt: expect.any(Number) });
    expect(row(gone)).toMatchObject({ tornDownAt: 5, statusMessage: null });
    const actions = accounts.auditRows().slice(-3);
    expect(actions.map(({ action, targetId }) => [action, targetId])).toEqual([
      ["environment.delete", running],
      ["environment.delete", ending],
      ["cluster.delete", id],
    ]);
  });
});
