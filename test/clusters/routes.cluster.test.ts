import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { type CapacityBook, createCapacityBook } from "../../src/clusters/capacity.ts";
import { parseReduced } from "../../src/clusters/kubeconfig.ts";
import { createPlacement } from "../../src/clusters/placement.ts";
import { createClusterRoutes } from "../../src/clusters/routes.ts";
import { type ClusterRuntimes, createClusterRuntimes } from "../../src/clusters/runtimes.ts";
import { createVault } from "../../src/clusters/vault.ts";
import { vetCluster } from "../../src/clusters/vetting.ts";
import { inTransaction } from "../../src/db/open.ts";
import { createKubernetesRuntime } from "../../src/runtime/kubernetes/kubernetes.ts";
import { cpuRequestMillis } from "../../src/runtime/kubernetes/manifests/manifests.ts";
import { type Accounts, openAccounts } from "../auth/setup.ts";
import { kubectl } from "../runtime/kubernetes/kubectl.ts";
import { signInBoth } from "../signed-in.ts";

const file = process.env.KUBECONFIG ?? "";

describe.if(Boolean(file))("clusters over the API, on a real one", () => {
  let accounts: Accounts;
  let admin: string;
  let runtimes: ClusterRuntimes;
  let capacity: CapacityBook;

  beforeAll(async () => {
    accounts = openAccounts();
    const { db, log, now, guard } = accounts;
    const vault = createVault([randomBytes(32)]);
    runtimes = createClusterRuntimes({
      db,
      vault,
      log,
      localRuntime: () => undefined,
      makeKubernetesRuntime: (reduced) =>
        createKubernetesRuntime({ cluster: { kubeConfig: parseReduced(reduced) }, log }),
      onOpen() {},
    });
    capacity = createCapacityBook({ db, runtimeOf: runtimes.of, now, log });
    const more = {
      vault,
      runtimes,
      capacity,
      localEnabled: false,
      vet: vetCluster,
      onEnvironmentsGivenUp() {},
    };
    accounts.app.route("/", createClusterRoutes({ db, now, guard, ...more }));
    ({ admin } = await signInBoth(accounts));
  });
  afterAll(async () => {
    await runtimes.close();
    accounts.close();
  });

  const call = (method: string, path: string, body?: unknown) =>
    accounts.call(method, `/api/v1/clusters${path}`, { token: admin, ...(body ? { body } : {}) });

  test("the kubeconfig of an administrator is taken, and the figures are the nodes' own", async () => {
    const kubeconfig = readFileSync(file).toString("base64");
    const answer = await call("POST", "", { name: "real", provider: "test", region: "here", kubeconfig });
    expect(answer.status).toBe(201);
    const { items: nodes } = JSON.parse(await kubectl(["get", "nodes", "-o", "json"]));
    expect(answer.body.node_count).toBe(nodes.length);
    const health = await call("GET", "/real/health");
    expect(health.body).toMatchObject({ status: "healthy", nodes: nodes.length, ready_nodes: nodes.length });
    expect(health.body.cpu_usage).toBeWithin(0, 100);
    expect(health.body.components.map(({ status }: { status: string }) => status)).not.toContain("unhealthy");
    const allocatable = Number.parseInt(nodes[0].status.allocatable.memory, 10) * 1024;
    const total = answer.body.capacity.total_memory;
    expect(Number.parseInt(total, 10) * (total.endsWith("Ki") ? 1024 : 2 ** 20)).toBe(
      allocatable * nodes.length,
    );
  });

  test("neither the kubeconfig nor a part of it is in any answer, row or line", async () => {
    const key = /client-key-data: (\S+)/.exec(readFileSync(file, "utf8"))?.[1] ?? "";
    expect(key.length).toBeGreaterThan(100);
    const answers = [
      await call("GET", ""),
      await call("GET", "/real"),
      await call("PUT", "/real", { region: "x" }),
    ];
    const traces = [
      ...answers.map(({ text }) => text),
      ...accounts.logged,
      JSON.stringify(accounts.auditRows()),
    ];
    for (const trace of traces) expect(trace).not.toContain(key.slice(0, 60));
    expect(accounts.sqlite.serialize().includes(Buffer.from(key.slice(0, 60)))).toBe(false);
  });

  test("an environment is placed while there is room for what it requests, and no further", async () => {
    const { cpuMillis, memoryBytes } = { cpuMillis: 500, memoryBytes: 64 * 2 ** 20 };
    const place = createPlacement({
      capacity,
      localEnabled: false,
      requestsOf: (limits) => ({ ...limits, cpuMillis: cpuRequestMillis(limits.cpuMillis) }),
    });
    const small = { cpuMillis, memoryBytes, storageBytes: 2 ** 30 };
    const placed = inTransaction(accounts.db, (tx) => place(tx, small, null));
    expect(placed.reason).toMatch(
      /^the only cluster with room: \d+m of \d+m CPU and \S+ of \S+ memory were requested$/,
    );
    const huge = { ...small, memoryBytes: 2 ** 50 };
    expect(() => inTransaction(accounts.db, (tx) => place(tx, huge, null))).toThrow("No cluster has room");
  });

  test("a kubeconfig with a token that is not accepted is refused", async () => {
    const broken = readFileSync(file, "utf8").replace(/client-(certificate|key)-data: \S+\n/g, "");
    const kubeconfig = broken.replace(/user:\s*(\{\})?\n?$/m, "user:\n    token: wrong\n");
    const answer = await call("PUT", "/real", { kubeconfig });
    expect(answer.status).toBe(400);
    expect(answer.body.detail).toBe("The cluster does not accept these credentials");
    expect((await call("GET", "/real/health")).body.status).toBe("healthy");
  });

  test("it is taken off the books", async () => {
    expect((await call("DELETE", "/real")).status).toBe(204);
    expect(runtimes.all().size).toBe(0);
  });
});
