import { afterAll, describe, expect, test } from "bun:test";
import fc from "fast-check";
import { inTransaction } from "../../src/db/open.ts";
import { environments } from "../../src/db/schema.ts";
import { inOrder, lineBytes, MAX_LINE_BYTES, type StoredLine } from "../../src/logs/chunk.ts";
import { LOG_LIMITS } from "../../src/logs/head.ts";
import { createLogStore, type LogStore } from "../../src/logs/store.ts";
import type { LogLine } from "../../src/runtime/runtime.ts";
import { line, lines, openLogDatabase } from "./environment.ts";

const database = openLogDatabase();
afterAll(() => database[Symbol.dispose]());

const SMALL = { headBytes: 300, tailBytes: 1500, chunkBytes: 200 };

/** Everything that can be read, in the way a follower reads it. */
function readAll(store: LogStore, environmentId: string, after = 0): StoredLine[] {
  const all: StoredLine[] = [];
  for (let batch = store.readAfter(environmentId, after); batch.length > 0; ) {
    all.push(...batch);
    batch = store.readAfter(environmentId, batch.at(-1)?.seq ?? 0);
  }
  return all;
}

function sum(written: readonly { message: string }[]): number {
  return written.reduce((bytes, { message }) => bytes + lineBytes(message), 0);
}

/** How many of the first lines fit into `bytes`. */
function fitting(written: readonly LogLine[], bytes: number): number {
  let used = 0;
  const end = written.findIndex(({ message }) => {
    used += lineBytes(message);
    return used > bytes;
  });
  return end === -1 ? written.length : end;
}

function stored(written: LogLine, seq: number): StoredLine {
  const { cursor: _, ...rest } = written;
  return { seq, ...rest };
}

const anyLine = fc.record({
  message: fc.oneof(
    fc.string({ unit: "binary", maxLength: 60 }),
    fc.constant(""),
    fc.string({ minLength: 100, maxLength: 400 }),
  ),
  level: fc.constantFrom("DEBUG", "INFO", "WARN", "ERROR"),
  source: fc.constantFrom("container", "application", "system"),
  atMs: fc.integer({ min: 0, max: 1000 }),
  generation: fc.integer({ min: 1, max: 3 }),
}) satisfies fc.Arbitrary<Omit<LogLine, "cursor">>;

const anyBatches = fc
  .array(fc.array(anyLine, { minLength: 1, maxLength: 25 }), { minLength: 1, maxLength: 12 })
  .map((batches) => {
    let count = 0;
    return batches.map((batch) => batch.map((one): LogLine => ({ ...one, cursor: String(++count) })));
  });

function storeOf(batches: LogLine[][], limits = SMALL) {
  const store = createLogStore(database.db, Date.now, limits);
  const environmentId = database.newEnvironment();
  for (const batch of batches) store.append(environmentId, batch);
  return { store, environmentId };
}

describe("the times of lines", () => {
  const at = (...times: number[]) => times.map((atMs) => ({ atMs }));

  test("do not run backwards: a late line has the time of the one before it", () => {
    expect(inOrder(at(5, 3, 4, 7, 6))).toEqual(at(5, 5, 5, 7, 7));
    expect(inOrder(at(3, 9), 8)).toEqual(at(8, 9));
    expect(inOrder([])).toEqual([]);
  });

  test("of a clock that is off by more than a minute are left as they are", () => {
    expect(inOrder(at(1_000_000, 1, 3, 2))).toEqual(at(1_000_000, 1, 3, 3));
    expect(inOrder(at(1_000_000, 940_000, 939_999))).toEqual(at(1_000_000, 1_000_000, 939_999));
  });

  test("let who asks for what there is since the last one it has miss nothing, whoever wrote it", () => {
    let now = 1000;
    const store = createLogStore(database.db, () => now);
    const environmentId = database.newEnvironment();
    const seen = new Map<number, string>();
    let since = 0;
    const poll = () => {
      for (const { seq, message, atMs } of store.readLast(environmentId, 1000, since).lines) {
        seen.set(seq, message);
        since = atMs;
      }
    };
    for (let n = 1; n <= 50; n++) {
      now += 10;
      store.appendSystem(environmentId, { message: `said ${n}`, generation: 1 });
      poll();
      store.append(environmentId, [line(n, { atMs: now - 7 })]);
      poll();
    }
    expect([...seen.values()]).toEqual(readAll(store, environmentId).map(({ message }) => message));
    expect(seen.size).toBe(100);
  });
});

describe("the first and the last lines", () => {
  test("whatever is written, the head is kept whole, the tail to its size, and the gap says what is missing", () => {
    fc.assert(
      fc.property(anyBatches, (batches) => {
        const written = inOrder(batches.flat());
        const { store, environmentId } = storeOf(batches);
        const kept = readAll(store, environmentId);
        const headLength = fitting(written, SMALL.headBytes);
        expect(kept.slice(0, headLength)).toEqual(
          written.slice(0, headLength).map((w, i) => stored(w, i + 1)),
        );

        const rest = kept.slice(headLength);
        const [gap] = rest;
        const tail = gap?.message.includes("missing here") ? rest.slice(1) : rest;
        const tailStart = written.length - tail.length;
        expect(tail).toEqual(written.slice(tailStart).map((w, i) => stored(w, tailStart + i + 1)));

        const missing = written.slice(headLength, tailStart);
        if (missing.length === 0) return;
        expect(gap).toMatchObject({ seq: tailStart, source: "system", level: "WARN" });
        expect(gap?.message).toStartWith(`… ${missing.length} line`);
        expect(gap?.message).toContain(sum(missing) < 1024 ? `(${sum(missing)} bytes)` : "KiB");
        expect(sum(tail)).toBeGreaterThanOrEqual(SMALL.tailBytes);
        const largest = Math.max(...written.map(({ message }) => lineBytes(message)));
        expect(sum(tail)).toBeLessThan(SMALL.tailBytes + 2 * Math.max(SMALL.chunkBytes, largest) + 4096);
      }),
      { numRuns: 150 },
    );
  });

  test("the last n lines since a time, and their number, are those of the whole log", () => {
    fc.assert(
      fc.property(
        anyBatches,
        fc.integer({ min: 1, max: 80 }),
        fc.option(fc.integer({ min: 0, max: 1001 }), { nil: undefined }),
        (batches, count, since) => {
          const { store, environmentId } = storeOf(batches);
          const all = readAll(store, environmentId).filter(({ atMs }) => atMs >= (since ?? 0));
          const excerpt = store.readLast(environmentId, count, since);
          expect(excerpt.lines).toEqual(all.slice(-count));
          expect(excerpt.total).toBe(all.length);
        },
      ),
      { numRuns: 150 },
    );
  });

  test("reading on after any line gives exactly the rest, or first how much of it is gone", () => {
    fc.assert(
      fc.property(anyBatches, fc.nat({ max: 320 }), (batches, after) => {
        const { store, environmentId } = storeOf(batches);
        const rest = readAll(store, environmentId).filter(({ seq }) => seq > after);
        const got = readAll(store, environmentId, after);
        expect(got.map(({ seq }) => seq)).toEqual(rest.map(({ seq }) => seq));
        const [first, second] = got;
        if (first?.message.includes("missing here") && second && first.seq !== after) {
          expect(Number(/\d+/.exec(first.message)?.[0])).toBeLessThanOrEqual(second.seq - 1 - after);
        }
      }),
      { numRuns: 100 },
    );
  });

  test("with the real limits 30 MiB leave the first MiB and the last nine", () => {
    const { store, environmentId } = storeOf([], LOG_LIMITS);
    const message = "x".repeat(127);
    const total = (30 * 1024 * 1024) / 128;
    for (let n = 1; n <= total; n += 4096) {
      store.append(environmentId, lines(n, Math.min(total, n + 4095), { message }));
    }
    const all = readAll(store, environmentId);
    const gapAt = all.findIndex(({ source }) => source === "system");
    expect(gapAt * 128).toBe(1024 * 1024);
    const tailBytes = (all.length - gapAt - 1) * 128;
    expect(tailBytes).toBeGreaterThanOrEqual(9 * 1024 * 1024);
    expect(tailBytes).toBeLessThan(9.2 * 1024 * 1024);
    expect(all.at(-1)?.seq).toBe(total);
    const missing = total - all.length + 1;
    expect(all[gapAt]?.message).toStartWith(
      `… ${missing} lines are missing here (${((missing * 128) / 1024 / 1024).toFixed(1)} MiB)`,
    );
    expect(store.readLast(environmentId, 1).total).toBe(all.length);
  });

  test("small appends share rows", () => {
    const { store, environmentId } = storeOf([], LOG_LIMITS);
    for (let n = 1; n <= 2000; n++) store.append(environmentId, [line(n)]);
    const [rows] = database.sqlite
      .query<{ n: number }, [string]>("SELECT count(*) AS n FROM log_chunks WHERE environment_id = ?")
      .all(environmentId);
    expect(rows?.n).toBeLessThan(20);
    expect(readAll(store, environmentId).map(({ message }) => message)).toEqual(
      lines(1, 2000).map(({ message }) => message),
    );
  });
});

describe("a line", () => {
  test("of any length takes a bounded space and says what was cut, on a whole character", () => {
    const { store, environmentId } = storeOf(
      [[line(1, { message: "€".repeat(MAX_LINE_BYTES) })]],
      LOG_LIMITS,
    );
    const [kept] = readAll(store, environmentId);
    expect(Buffer.byteLength(kept?.message ?? "")).toBeLessThanOrEqual(MAX_LINE_BYTES);
    expect(kept?.message).toMatch(/^€+ … \(\d+ bytes of this line were cut\)$/);
  });

  test("of DevPocket's own is kept as several when it has several", () => {
    const store = createLogStore(database.db, () => 42);
    const environmentId = database.newEnvironment();
    store.appendSystem(environmentId, { message: "one\r\ntwo", generation: 3, level: "WARN" });
    expect(readAll(store, environmentId)).toEqual([
      { seq: 1, atMs: 42, level: "WARN", source: "system", message: "one", generation: 3 },
      { seq: 2, atMs: 42, level: "WARN", source: "system", message: "two", generation: 3 },
    ]);
  });

  test("of an environment that does not exist is refused, and nothing is left of it", () => {
    const store = createLogStore(database.db);
    expect(() => store.append("0".repeat(24), [line(1)])).toThrow();
    expect(store.readAfter("0".repeat(24), 0)).toEqual([]);
  });
});

describe("the cursor", () => {
  test("is that of the last line of the runtime, whatever DevPocket says in between", () => {
    const store = createLogStore(database.db);
    const environmentId = database.newEnvironment();
    expect(store.cursor(environmentId)).toBeNull();
    store.append(environmentId, lines(1, 3));
    store.appendSystem(environmentId, { message: "idle for an hour", generation: 1 });
    expect(store.cursor(environmentId)).toBe("3");
  });

  test("and a line within a transaction that fails are not written", () => {
    const store = createLogStore(database.db);
    const environmentId = database.newEnvironment();
    expect(() =>
      inTransaction(database.db, (tx) => {
        store.appendSystem(environmentId, { message: "stopping", generation: 1 }, tx);
        throw new Error("the verb failed");
      }),
    ).toThrow("the verb failed");
    expect(store.lastSeq(environmentId)).toBe(0);
  });
});

describe("the last installation", () => {
  const container = (n: number, generation: number) => line(n, { source: "container", generation });
  const application = (n: number, generation: number) => line(n, { source: "application", generation });

  test.each([
    [
      "nothing was said: the first line of a new generation's containers",
      [(s: LogStore, id: string) => s.append(id, [container(1, 1), application(2, 1), container(3, 2)])],
      3,
    ],
    [
      "the runtime has restarted the containers",
      [(s: LogStore, id: string) => s.append(id, [container(1, 1), application(2, 1), container(3, 1)])],
      3,
    ],
    [
      "DevPocket has said so",
      [
        (s: LogStore, id: string) => s.append(id, [container(1, 1), application(2, 1)]),
        (s: LogStore, id: string) =>
          s.appendSystem(id, { message: "Starting", generation: 2, beginsInstallation: true }),
        (s: LogStore, id: string) => s.append(id, [container(3, 2), application(4, 2)]),
      ],
      3,
    ],
    [
      "DevPocket has said so twice",
      [
        (s: LogStore, id: string) =>
          s.appendSystem(id, { message: "Starting", generation: 1, beginsInstallation: true }),
        (s: LogStore, id: string) => s.append(id, [container(1, 1)]),
        (s: LogStore, id: string) =>
          s.appendSystem(id, { message: "Starting", generation: 1, beginsInstallation: true }),
      ],
      1,
    ],
    [
      "DevPocket has only said something",
      [
        (s: LogStore, id: string) => s.append(id, [container(1, 1), application(2, 1)]),
        (s: LogStore, id: string) => s.appendSystem(id, { message: "Stopping", generation: 2 }),
      ],
      1,
    ],
    [
      "there was none",
      [(s: LogStore, id: string) => s.appendSystem(id, { message: "Waiting for room", generation: 1 })],
      1,
    ],
  ])("began where %s", (_, steps, firstSeq) => {
    const store = createLogStore(database.db);
    const environmentId = database.newEnvironment();
    for (const step of steps) step(store, environmentId);
    expect(store.beforeInstallation(environmentId)).toBe(firstSeq - 1);
  });
});

test("the log goes with its environment", () => {
  const store = createLogStore(database.db);
  const environmentId = database.newEnvironment();
  store.append(environmentId, lines(1, 10));
  database.db.delete(environments).run();
  expect(store.lastSeq(environmentId)).toBe(0);
  expect(store.readLast(environmentId, 10)).toEqual({ lines: [], total: 0 });
});
