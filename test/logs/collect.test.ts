import { afterAll, describe, expect, test } from "bun:test";
import { join } from "node:path";
import { createLogger } from "../../src/lib/logger.ts";
import { createLogCollector } from "../../src/logs/collect.ts";
import { createLogStore, type LogStore } from "../../src/logs/store.ts";
import { type LogLine, type Runtime, RuntimeUnreachable } from "../../src/runtime/runtime.ts";
import { until } from "../until.ts";
import { line, lines, openLogDatabase } from "./environment.ts";

const database = openLogDatabase();
afterAll(() => database[Symbol.dispose]());
const retry = { baseMs: 1, maxMs: 4 };
const log = createLogger({ format: "text", level: "error", write: () => {} });

type LogSource = Pick<Runtime, "logs">;

function collectFrom(runtime: LogSource) {
  const store = createLogStore(database.db);
  const ref = { environmentId: database.newEnvironment(), userId: "ada" };
  const collector = createLogCollector({ store, runtimeOf: () => runtime, log, retry });
  return { store, ref, collector };
}

function messages(store: LogStore, environmentId: string): string[] {
  const all: string[] = [];
  for (let after = 0; ; ) {
    const batch = store.readAfter(environmentId, after);
    if (batch.length === 0) return all;
    all.push(...batch.map(({ message }) => message));
    after = batch.at(-1)?.seq ?? after;
  }
}

function counted(count: number): string[] {
  return lines(1, count).map(({ message }) => message);
}

/** A runtime whose log has `count` lines and which counts how often it was read. */
function finite(count: number): LogSource & { reads: number } {
  return {
    reads: 0,
    async *logs(_, { after }): AsyncGenerator<LogLine> {
      this.reads++;
      for (let n = Number(after ?? 0) + 1; n <= count; n++) yield line(n);
    },
  };
}

async function untilAborted(signal: AbortSignal): Promise<void> {
  if (!signal.aborted) await new Promise((resolve) => signal.addEventListener("abort", resolve));
}

describe("a collection", () => {
  test("writes what it has read when something else is to be written after it", async () => {
    const given = Promise.withResolvers<void>();
    const { store, ref, collector } = collectFrom({
      async *logs(_, { signal }) {
        yield line(1);
        given.resolve();
        await untilAborted(signal);
      },
    });
    collector.start(ref);
    await given.promise;
    expect(messages(store, ref.environmentId)).toEqual([]);
    collector.flush(ref.environmentId);
    store.appendSystem(ref.environmentId, { message: "said afterwards", generation: 1 });
    expect(messages(store, ref.environmentId)).toEqual(["line 1", "said afterwards"]);
    await collector.close();
  });

  test("copies the runtime's log and ends with it", async () => {
    const { store, ref, collector } = collectFrom(finite(5000));
    collector.start(ref);
    expect(collector.active).toBe(1);
    await until(() => collector.active === 0);
    expect(messages(store, ref.environmentId)).toEqual(counted(5000));
    expect(store.cursor(ref.environmentId)).toBe("5000");
  });

  test("is one, however often it is begun, and looks once more when it was asked for meanwhile", async () => {
    const runtime = finite(3);
    const { store, ref, collector } = collectFrom({
      async *logs(environment, options) {
        yield* runtime.logs(environment, options);
        if (runtime.reads === 1) for (let look = 0; look < 10; look++) collector.start(ref);
      },
    });
    for (let look = 0; look < 10; look++) collector.start(ref);
    await until(() => collector.active === 0);
    expect(runtime.reads).toBe(2);
    expect(messages(store, ref.environmentId)).toEqual(counted(3));
  });

  test("writes what has come within a moment, though the log goes on", async () => {
    const { store, ref, collector } = collectFrom({
      async *logs(_, { signal }) {
        yield line(1);
        await untilAborted(signal);
      },
    });
    collector.start(ref);
    await until(() => store.lastSeq(ref.environmentId) === 1);
    await collector.close();
  });

  test("that is stopped has written what it had read, and can be begun again at once", async () => {
    const { store, ref, collector } = collectFrom({
      async *logs(_, { after, signal }) {
        if (after === null) yield* lines(1, 100);
        else yield line(101);
        await untilAborted(signal);
      },
    });
    collector.start(ref);
    await Bun.sleep(0);
    const stopped = collector.stop(ref.environmentId);
    collector.start(ref);
    await stopped;
    expect(messages(store, ref.environmentId)).toEqual(counted(100));
    await until(() => store.lastSeq(ref.environmentId) === 101);
    await collector.close();
    collector.start(ref);
    expect(collector.active).toBe(0);
  });

  test("goes on from its cursor when the runtime breaks off, at whatever line", async () => {
    let breaks = 0;
    const { store, ref, collector } = collectFrom({
      async *logs(_, { after }) {
        const from = Number(after ?? 0) + 1;
        for (let n = from; n <= 300; n++) {
          if (n === from + 1 + (breaks % 23)) {
            breaks++;
            throw breaks % 2 ? new RuntimeUnreachable("connection reset") : new TypeError("a bug");
          }
          yield line(n);
        }
      },
    });
    collector.start(ref);
    await until(() => collector.active === 0);
    expect(breaks).toBeGreaterThan(10);
    expect(messages(store, ref.environmentId)).toEqual(counted(300));
  });

  test("waits no longer after failures than until it is asked for again", async () => {
    let isBack = false;
    let reads = 0;
    const store = createLogStore(database.db);
    const ref = { environmentId: database.newEnvironment(), userId: "ada" };
    const runtime: LogSource = {
      async *logs() {
        reads++;
        if (!isBack) throw new RuntimeUnreachable("the cluster is gone");
        yield line(1);
      },
    };
    const patient = { baseMs: 1, maxMs: 3_600_000 };
    const collector = createLogCollector({ store, runtimeOf: () => runtime, log, retry: patient });
    for (let asked = 1; asked <= 22; asked++) {
      collector.start(ref);
      await until(() => reads >= asked);
    }
    isBack = true;
    collector.start(ref);
    await until(() => collector.active === 0);
    expect(messages(store, ref.environmentId)).toEqual(counted(1));
  });

  test("of an environment whose record is gone fails without harm until it is stopped", async () => {
    const failures: string[] = [];
    const store = createLogStore(database.db);
    const collector = createLogCollector({
      store,
      runtimeOf: () => finite(10),
      log: createLogger({ format: "json", level: "error", write: (text) => failures.push(text) }),
      retry,
    });
    collector.start({ environmentId: "f".repeat(24), userId: "ada" });
    await until(() => failures.length > 2);
    await collector.close();
    expect(failures[0]).toContain("FOREIGN KEY");
  });
});

test("a server that is killed again and again while it writes has every line once", async () => {
  const environmentId = database.newEnvironment();
  const store = createLogStore(database.db);
  for (let round = 1; round <= 8; round++) {
    const before = store.lastSeq(environmentId);
    const writer = Bun.spawn(
      [process.execPath, join(import.meta.dir, "writer.ts"), database.file, environmentId],
      {
        stdout: "ignore",
        stderr: "inherit",
      },
    );
    await until(() => store.lastSeq(environmentId) > before + 200 * round);
    writer.kill("SIGKILL");
    await writer.exited;
  }
  const total = store.lastSeq(environmentId);
  expect(total).toBeGreaterThan(7200);
  expect(messages(store, environmentId)).toEqual(counted(total));
});
