import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { createActivity } from "../../src/environments/activity.ts";
import { createIdleWatch } from "../../src/environments/idle.ts";
import { environmentRows } from "../../src/environments/rows.ts";
import { createLogger } from "../../src/lib/logger.ts";
import { temporaryDatabase } from "../database.ts";
import { environment, owner } from "./setup.ts";

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;

let database: ReturnType<typeof temporaryDatabase>;
beforeEach(() => {
  database = temporaryDatabase();
});
afterEach(() => database.remove());

function watched(limits: { free: number | null; starter: number | null; pro: number | null }) {
  const { db } = database;
  let at = 0;
  const logged: string[] = [];
  const log = createLogger({ format: "text", level: "error", write: (line) => void logged.push(line) });
  const activity = createActivity(db, () => at, log);
  const told: string[] = [];
  const stopped: string[] = [];
  const watch = createIdleWatch({
    db,
    activity,
    limits,
    now: () => at,
    log,
    warn: (row, message) => told.push(`${row.name}: ${message}`),
    stop(row, reason) {
      if (row.name === "broken") throw new Error("it can't be stopped");
      stopped.push(`${row.name}: ${reason}`);
    },
  });
  return {
    db,
    activity,
    told,
    stopped,
    logged,
    at(ms: number) {
      at = ms;
      watch.check();
    },
  };
}

describe("idle stop", () => {
  const limits = { free: 2 * HOUR, starter: 8 * HOUR, pro: null };

  test("warns once, five minutes before, then stops with the reason", () => {
    const idle = watched(limits);
    environment(idle.db, owner(idle.db), { name: "unused" });
    idle.at(2 * HOUR - 6 * MINUTE);
    expect(idle.told).toEqual([]);
    idle.at(2 * HOUR - 5 * MINUTE);
    idle.at(2 * HOUR - 4 * MINUTE);
    expect(idle.told).toEqual([
      "unused: Nobody has used this environment for a while; it will be stopped in 5 minutes",
    ]);
    expect(idle.stopped).toEqual([]);
    idle.at(2 * HOUR);
    expect(idle.stopped).toEqual(["unused: Stopped after 2 hours without activity"]);
  });

  test("leaves alone what is used, and warns anew after that use", () => {
    const idle = watched(limits);
    const row = environment(idle.db, owner(idle.db));
    idle.at(2 * HOUR - 5 * MINUTE);
    idle.activity.touch(row.id);
    idle.at(2 * HOUR);
    idle.at(3 * HOUR);
    expect(idle.stopped).toEqual([]);
    expect(idle.told).toHaveLength(1);
    idle.at(4 * HOUR - 10 * MINUTE);
    expect(idle.told).toHaveLength(2);
    idle.at(4 * HOUR - 5 * MINUTE);
    expect(idle.stopped).toHaveLength(1);
  });

  test("warns also what has been idle for longer, and stops it five minutes later", () => {
    const idle = watched(limits);
    environment(idle.db, owner(idle.db), { name: "forgotten" });
    idle.at(100 * HOUR);
    idle.at(100 * HOUR + 4 * MINUTE);
    expect(idle.told).toEqual([expect.stringContaining("it will be stopped in 5 minutes")]);
    expect(idle.stopped).toEqual([]);
    idle.at(100 * HOUR + 5 * MINUTE);
    expect(idle.stopped).toHaveLength(1);
  });

  test("counts by the owner's plan, and from the start of what was never used", () => {
    const idle = watched(limits);
    environment(idle.db, owner(idle.db, { plan: "starter" }), { name: "starter" });
    environment(idle.db, owner(idle.db, { plan: "pro" }), { name: "pro" });
    environment(idle.db, owner(idle.db), { name: "young", statusSince: 7 * HOUR });
    environment(idle.db, owner(idle.db), { name: "stopped", status: "stopped" });
    idle.at(8 * HOUR - 5 * MINUTE);
    idle.at(8 * HOUR);
    expect(idle.stopped).toEqual(["starter: Stopped after 8 hours without activity"]);
    for (const hours of [1000, 1001]) idle.at(hours * HOUR);
    expect(idle.stopped.some((line) => line.startsWith("pro") || line.startsWith("stopped:"))).toBe(false);
  });

  test("stops the others where one can't be stopped", () => {
    const idle = watched(limits);
    for (const name of ["broken", "sound"]) environment(idle.db, owner(idle.db), { name });
    for (const minutes of [-5, 0]) idle.at(2 * HOUR + minutes * MINUTE);
    expect(idle.stopped).toEqual(["sound: Stopped after 2 hours without activity"]);
    expect(idle.logged).toEqual([expect.stringContaining("it can't be stopped")]);
  });

  test("does nothing at all when it is switched off for everyone", () => {
    const idle = watched({ free: null, starter: null, pro: null });
    environment(idle.db, owner(idle.db));
    idle.at(1000 * HOUR);
    expect([...idle.told, ...idle.stopped]).toEqual([]);
  });
});

test("use that can't be written is no fault of whoever types, and is written when it can be", () => {
  const { db, sqlite } = database;
  const row = environment(db, owner(db));
  const lastActivity = () => environmentRows(db).byId(row.id)?.lastActivity;
  const logged: string[] = [];
  const log = createLogger({ format: "text", level: "error", write: (line) => void logged.push(line) });
  const activity = createActivity(db, () => HOUR, log);
  sqlite.run("PRAGMA query_only = ON");
  activity.touch(row.id);
  activity.flush();
  expect(logged).toEqual([expect.stringContaining("the use of environments can't be written")]);
  sqlite.run("PRAGMA query_only = OFF");
  activity.flush();
  expect(lastActivity()).toBe(HOUR);
});
