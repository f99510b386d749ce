import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { type CapacityBook, createCapacityBook } from "../../src/clusters/capacity.ts";
import { clusters } from "../../src/db/schema.ts";
import { createLogger } from "../../src/lib/logger.ts";
import { type Capacity, type Runtime, RuntimeUnreachable } from "../../src/runtime/runtime.ts";
import { temporaryDatabase } from "../database.ts";
import { environment, owner } from "../environments/setup.ts";
import { clusterRow } from "../rows.ts";
import { unused, unusedRuntime } from "../runtime/unused.ts";
import { until } from "../until.ts";

const CAPACITY: Capacity = {
  nodes: 2,
  readyNodes: 2,
  totalCpuMillis: 1000,
  usedCpuMillis: 0,
  totalMemoryBytes: 1,
  usedMemoryBytes: 0,
  totalStorageBytes: null,
  usedStorageBytes: null,
  components: [],
};

let database: ReturnType<typeof temporaryDatabase>;
let book: CapacityBook;
let asked: string[];
let answer: (clusterId: string) => Promise<Capacity>;
let logged: string[];
let turned: string[];
let time = 1000;

beforeEach(() => {
  database = temporaryDatabase();
  asked = [];
  logged = [];
  turned = [];
  answer = async () => CAPACITY;
  book = createCapacityBook({
    db: database.db,
    now: () => ++time,
    log: createLogger({ format: "text", level: "debug", write: (line) => void logged.push(line) }),
    everyMs: 5,
    timeoutMs: 50,
    runtimeOf: (id) => runtime(id),
    onReachability: (id) => void turned.push(id),
  });
  for (const id of ["a", "b"]) {
    database.db
      .insert(clusters)
      .values({ id, name: id, provider: "x", region: "y", createdAt: 1, updatedAt: 1 })
      .run();
  }
});
afterEach(() => {
  book.stop();
  database.remove();
});

function runtime(id: string): Runtime {
  return unusedRuntime({
    capacity() {
      asked.push(id);
      return answer(id);
    },
  });
}

const nodeCounts = () =>
  database.db
    .select()
    .from(clusters)
    .all()
    .map(({ nodeCount }) => nodeCount);

describe("the capacity book", () => {
  test("knows nothing before it has looked, and then what it saw last", async () => {
    expect(book.last("a")).toBeUndefined();
    const seen = await book.measure("a");
    expect(seen).toMatchObject({ reachable: true, capacity: CAPACITY });
    expect(book.last("a")).toBe(seen);
    expect(nodeCounts()).toEqual([2, null]);
  });

  test("looks at every cluster again and again", async () => {
    book.start();
    await until(() => asked.filter((id) => id === "a").length >= 3 && asked.includes("b"));
  });

  test("asks once for all who want to know at the same time", async () => {
    const [one, two] = await Promise.all([book.measure("a"), book.measure("a")]);
    expect(one).toBe(two);
    expect(asked).toEqual(["a"]);
    await book.measure("a");
    expect(asked).toEqual(["a", "a"]);
  });

  test("a cluster that hangs is unreachable after the time limit, and the others are looked at meanwhile", async () => {
    answer = (id) => (id === "a" ? new Promise(() => {}) : Promise.resolve(CAPACITY));
    book.start();
    await until(() => book.last("b"));
    expect(book.last("a")).toBeUndefined();
    await until(() => book.last("a")?.reachable === false);
  });

  test("says in the log when a cluster goes and when it comes back, once each", async () => {
    answer = async () => {
      throw new RuntimeUnreachable("The cluster can't be reached: connection refused");
    };
    await book.measure("a");
    await book.measure("a");
    answer = async () => CAPACITY;
    await book.measure("a");
    await book.measure("a");
    expect(logged.map((line) => line.replace(/^\S+ /, ""))).toEqual([
      expect.stringContaining("cluster unreachable"),
      expect.stringContaining("cluster reachable again"),
    ]);
    expect(turned).toEqual(["a", "a"]);
    expect(nodeCounts()).toEqual([2, null]);
  });

  test("a cluster that is registered twice counts what is on it by either name", async () => {
    const ids = ["a", "b", "c"].map((clusterId) => {
      const uid = clusterId === "c" ? "u2" : "u1";
      const cluster = clusterRow({ id: clusterId, uid });
      database.db
        .insert(clusters)
        .values(cluster)
        .onConflictDoUpdate({ target: clusters.id, set: { uid } })
        .run();
      return environment(database.db, owner(database.db), { clusterId, status: "running" }).id;
    });
    for (const id of ["a", "b"]) {
      const seen = await book.measure(id);
      // Sets are all alike to toMatchObject.
      expect(seen.reachable && seen.counted).toEqual(new Set(ids.slice(0, 2)));
    }
  });

  test("goes on measuring while the database takes nothing, and writes when it does again", async () => {
    database.sqlite.run("PRAGMA query_only = ON");
    book.start();
    await until(() => asked.length > 4);
    expect(book.last("a")).toMatchObject({ reachable: true });
    expect(logged[0]).toContain("a cluster's figures can't be written");
    database.sqlite.run("PRAGMA query_only = OFF");
    await until(() => nodeCounts().every((count) => count === 2));
  });

  test("goes on measuring when the database can't be read, and holds nothing for counted", async () => {
    database.sqlite.run("ALTER TABLE environments RENAME TO away");
    expect(await book.measure("a")).toMatchObject({ reachable: true, counted: new Set() });
  });

  test.each([
    ["the cluster was forgotten", () => book.forget("a")],
    ["the server has stopped", () => book.stop()],
  ])("an answer that comes after %s is not kept", async (_what, happen) => {
    let give: (capacity: Capacity) => void = unused;
    answer = () =>
      new Promise((resolve) => {
        give = resolve;
      });
    const late = book.measure("a");
    happen();
    give({ ...CAPACITY, nodes: 99 });
    await late;
    expect(book.last("a")).toBeUndefined();
    expect(nodeCounts()).toEqual([null, null]);
  });
});
