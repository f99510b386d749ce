import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { randomBytes } from "node:crypto";
import { eq } from "drizzle-orm";
import { ensureLocalCluster } from "../../src/clusters/local.ts";
import { createClusterRuntimes } from "../../src/clusters/runtimes.ts";
import { createVault } from "../../src/clusters/vault.ts";
import { inTransaction } from "../../src/db/open.ts";
import { clusters } from "../../src/db/schema.ts";
import { createLogger } from "../../src/lib/logger.ts";
import { type Runtime, RuntimeUnreachable } from "../../src/runtime/runtime.ts";
import { temporaryDatabase } from "../database.ts";
import { unused, unusedRuntime } from "../runtime/unused.ts";

let database: ReturnType<typeof temporaryDatabase>;
let events: string[];
let logged: string[];
const vault = createVault([randomBytes(32)]);

beforeEach(() => {
  database = temporaryDatabase();
  events = [];
  logged = [];
});
afterEach(() => database.remove());

function runtime(name: string): Runtime {
  events.push(`made ${name}`);
  return unusedRuntime({ close: async () => void events.push(`closed ${name}`) });
}

function addCluster(id: string, kubeconfig: string | null): void {
  const values = { id, name: id, provider: "x", region: "y", createdAt: 1, updatedAt: 1 };
  database.db
    .insert(clusters)
    .values({ ...values, kubeconfig: kubeconfig && vault.seal(kubeconfig, id) })
    .run();
}

function open({ local = true } = {}) {
  const embedded = local ? runtime("local") : undefined;
  return createClusterRuntimes({
    db: database.db,
    vault,
    localRuntime: () => embedded,
    makeKubernetesRuntime(kubeconfig) {
      if (kubeconfig === "broken") throw new TypeError("no cluster");
      return runtime(kubeconfig);
    },
    onOpen: (_runtime, id) => void events.push(`opened ${id}`),
    log: createLogger({ format: "text", level: "debug", write: (line) => void logged.push(line) }),
  });
}

describe("the runtimes of clusters", () => {
  test("are made once, when they are first asked for", () => {
    addCluster("prod", "config");
    const runtimes = open({ local: false });
    expect(events).toEqual([]);
    expect(runtimes.of("prod")).toBe(runtimes.of("prod"));
    expect(events).toEqual(["made config", "opened prod"]);
  });

  test("are all opened at start; one that can't be used is logged and holds up none", () => {
    inTransaction(database.db, (tx) => ensureLocalCluster(tx, 1));
    addCluster("broken", "broken");
    addCluster("prod", "config");
    database.db
      .update(clusters)
      .set({ kubeconfig: "v1.00000000.AA.AA" })
      .where(eq(clusters.id, "none"))
      .run();
    const runtimes = open();
    runtimes.openAll();
    expect(runtimes.all().size).toBe(2);
    expect(logged).toHaveLength(1);
    expect(logged[0]).toContain("broken");
    expect(logged[0]).toContain("no cluster");
  });

  test.each([
    ["unknown", "nowhere"],
    ["without a kubeconfig", "bare"],
    ["with a kubeconfig that can't be used", "broken"],
    ["whose key is gone", "sealed"],
  ])("a cluster %s can't be reached, which is no error of the environment's", (_what, id) => {
    addCluster("bare", null);
    addCluster("broken", "broken");
    addCluster("sealed", "x");
    const other = createVault([randomBytes(32)]).seal("config", "sealed");
    database.db.update(clusters).set({ kubeconfig: other }).where(eq(clusters.id, "sealed")).run();
    expect(() => open().of(id)).toThrow(RuntimeUnreachable);
  });

  test("the local cluster's can't be reached while it is switched off", () => {
    inTransaction(database.db, (tx) => ensureLocalCluster(tx, 1));
    const id = database.db.select().from(clusters).get()?.id ?? "";
    expect(() => open({ local: false }).of(id)).toThrow("The local runtime is not there");
    expect(open().of(id)).toBeDefined();
  });

  test("a new kubeconfig brings a new runtime, and the old one is let go", async () => {
    addCluster("prod", "old");
    const runtimes = open({ local: false });
    const before = runtimes.of("prod");
    database.db
      .update(clusters)
      .set({ kubeconfig: vault.seal("new", "prod") })
      .where(eq(clusters.id, "prod"))
      .run();
    await runtimes.renew("prod");
    expect(runtimes.of("prod")).not.toBe(before);
    expect(events).toEqual(["made old", "opened prod", "made new", "opened prod", "closed old"]);
  });

  test("a removed cluster's is let go and not made again", async () => {
    addCluster("prod", "config");
    const runtimes = open({ local: false });
    runtimes.of("prod");
    database.db.delete(clusters).where(eq(clusters.id, "prod")).run();
    await runtimes.renew("prod");
    expect(events.at(-1)).toBe("closed config");
    expect(() => runtimes.of("prod")).toThrow("not registered any more");
  });

  test("all are closed at the end, also when one won't", async () => {
    inTransaction(database.db, (tx) => ensureLocalCluster(tx, 1));
    addCluster("a", "a");
    addCluster("b", "b");
    const runtimes = open();
    runtimes.openAll();
    runtimes.of("a").close = async () => unused();
    await runtimes.close();
    expect(events.filter((event) => event.startsWith("closed")).sort()).toEqual(["closed b", "closed local"]);
    expect(runtimes.all().size).toBe(0);
  });
});

test("the local cluster is made once", () => {
  for (const now of [1, 2]) inTransaction(database.db, (tx) => ensureLocalCluster(tx, now));
  expect(database.db.select().from(clusters).all()).toMatchObject([
    { name: "local", provider: "local", region: "local", status: "active", createdAt: 1, kubeconfig: null },
  ]);
});
