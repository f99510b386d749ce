import { afterEach, beforeEach, expect, test } from "bun:test";
import { SYSTEM_ACTOR } from "../../src/audit/audit.ts";
import { inTransaction } from "../../src/db/open.ts";
import { createEnvironments } from "../../src/environments/environments.ts";
import type { StatusChange } from "../../src/environments/feed.ts";
import { createLogger } from "../../src/lib/logger.ts";
import { createLogStore } from "../../src/logs/store.ts";
import { temporaryDatabase } from "../database.ts";
import { until } from "../until.ts";
import { DEADLINES, environment, owner } from "./setup.ts";
import { World } from "./world.ts";

let database: ReturnType<typeof temporaryDatabase>;
beforeEach(() => {
  database = temporaryDatabase();
});
afterEach(() => database.remove());

function unused(): never {
  throw new Error("not expected to be called");
}

/** The room, on a database whose one environment runs and whose cluster is away. */
function room({
  idleMs = null,
  onTornDown = () => {},
}: {
  idleMs?: number | null;
  onTornDown?(userId: string): void;
}) {
  const { db } = database;
  const logged: string[] = [];
  const userId = owner(db);
  const logStore = createLogStore(db);
  const world = new World();
  world.reachable = false;
  const environments = createEnvironments({
    db,
    config: {
      deadlines: DEADLINES,
      idleStopMs: { free: idleMs, starter: null, pro: null },
      deleteStoppedAfterMs: null,
    },
    log: createLogger({ format: "text", level: "error", write: (line) => void logged.push(line) }),
    now: Date.now,
    logStore,
    runtimeOf: () => world,
    runtimes: () => new Map(),
    findTemplate: unused,
    place: unused,
    requireActor: unused,
    mailer: { isConfigured: false, enqueue: unused },
    onTornDown,
    sessionLives: () => true,
    stopping: new AbortController().signal,
  });
  const { id } = environment(db, userId, { statusSince: Date.now() });
  return { environments, logStore, logged, userId, world, id, row: () => environments.rows.byId(id) };
}

test("what follows an account's deletion may fail: it is told, and nothing of the deletion is lost", async () => {
  const { environments, logged, userId, row } = room({
    onTornDown() {
      throw new Error("the disk is full");
    },
  });
  inTransaction(database.db, (tx) => environments.ofUser(tx, userId, "delete", SYSTEM_ACTOR));
  await until(() => logged.length > 0);
  expect(logged).toEqual([expect.stringContaining("the disk is full")]);
  expect(row()).toMatchObject({ status: "terminated", tornDownAt: null });
});

test("what stops an environment that nobody uses writes stop and reason together or not at all", async () => {
  const { environments, logStore, logged, id, row } = room({ idleMs: 200 });
  database.sqlite.run(
    `CREATE TRIGGER full BEFORE UPDATE ON log_chunks WHEN instr(new.lines, 'Stopped after')
     BEGIN SELECT RAISE(ABORT, 'the disk is full'); END`,
  );
  environments.start();
  await until(() => logged.some((line) => line.includes("the disk is full")));
  expect(row()).toMatchObject({ status: "running", generation: 1 });
  database.sqlite.run("DROP TRIGGER full");
  await until(() => row()?.status === "stopping");
  const { lines } = logStore.readLast(id, 1);
  expect(lines).toMatchObject([{ message: "Stopped after 1 second without activity", generation: 2 }]);
  await environments.stop();
});

test("a log that goes on although it is to end does not keep the server from stopping", async () => {
  const { environments, world, id } = room({});
  const begun = Promise.withResolvers<void>();
  world.logs = async function* () {
    begun.resolve();
    yield* await new Promise<never[]>(() => {});
  };
  world.reachable = true;
  world.observed.set(id, { phase: "running", generation: 1, startedAtMs: 1 });
  environments.start();
  await begun.promise;
  await environments.stop();
});

test("what ends with its cluster is gone for all that wait for it, and its log is read no more", async () => {
  const tornDown: string[] = [];
  const { environments, world, id, userId, row } = room({ onTornDown: (of) => void tornDown.push(of) });
  const [reading, ended] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  world.logs = async function* (_, { signal }) {
    signal.addEventListener("abort", () => ended.resolve());
    reading.resolve();
    yield* await ended.promise.then(() => []);
  };
  world.reachable = true;
  world.observed.set(id, { phase: "running", generation: 1, startedAtMs: 1 });
  environments.start();
  await reading.promise;
  const told: StatusChange[] = [];
  environments.feed.watch(id, (change) => told.push(change));
  const before = row();
  if (!before) throw new Error("the row is gone");
  environments.givenUp([{ before, after: { ...before, status: "terminated", tornDownAt: 1 } }]);
  await ended.promise;
  expect(told).toMatchObject([{ previous: "running", status: "terminated" }]);
  expect(tornDown).toEqual([userId]);
  await environments.stop();
});
