import { afterEach, beforeEach, expect, test } from "bun:test";
import { SYSTEM_ACTOR } from "../../src/audit/audit.ts";
import { inTransaction } from "../../src/db/open.ts";
import { createEnvironments } from "../../src/environments/environments.ts";
import { createLogger } from "../../src/lib/logger.ts";
import { createLogStore } from "../../src/logs/store.ts";
import { temporaryDatabase } from "../database.ts";
import { until } from "../until.ts";
import { DEADLINES, environment, owner } from "./setup.ts";

let database: ReturnType<typeof temporaryDatabase>;
beforeEach(() => {
  database = temporaryDatabase();
});
afterEach(() => database.remove());

function unused(): never {
  throw new Error("not expected to be called");
}

test("what follows an account's deletion may fail: it is told, and nothing of the deletion is lost", async () => {
  const { db } = database;
  const logged: string[] = [];
  const now = () => 1;
  const { rows, ofUser } = createEnvironments({
    db,
    config: {
      deadlines: DEADLINES,
      idleStopMs: { free: null, starter: null, pro: null },
      deleteStoppedAfterMs: null,
    },
    log: createLogger({ format: "text", level: "error", write: (line) => void logged.push(line) }),
    now,
    logStore: createLogStore(db, now),
    runtimeOf: unused,
    runtimes: () => new Map(),
    findTemplate: unused,
    place: unused,
    requireActor: unused,
    mailer: { isConfigured: false, enqueue: unused },
    onTornDown() {
      throw new Error("the disk is full");
    },
    stopping: new AbortController().signal,
  });
  const userId = owner(db);
  const { id } = environment(db, userId);
  inTransaction(db, (tx) => ofUser(tx, userId, "delete", SYSTEM_ACTOR));
  await until(() => logged.length > 0);
  expect(logged).toEqual([expect.stringContaining("the disk is full")]);
  expect(rows.byId(id)).toMatchObject({ status: "terminated", tornDownAt: null });
});
