import { afterEach, beforeEach, expect, test } from "bun:test";
import { eq } from "drizzle-orm";
import { environments } from "../../src/db/schema.ts";
import { createRetention } from "../../src/environments/retention.ts";
import { environmentRows } from "../../src/environments/rows.ts";
import { createLogger } from "../../src/lib/logger.ts";
import type { Letter } from "../../src/mail/message.ts";
import { temporaryDatabase } from "../database.ts";
import { environment, owner } from "./setup.ts";

const DAY = 86_400_000;

let database: ReturnType<typeof temporaryDatabase>;
beforeEach(() => {
  database = temporaryDatabase();
});
afterEach(() => database.remove());

function retained({ stoppedMs, withMail = true }: { stoppedMs: number | null; withMail?: boolean }) {
  const { db } = database;
  let at = 0;
  const letters: Letter[] = [];
  const removed: string[] = [];
  const notes: string[] = [];
  const logged: string[] = [];
  const retention = createRetention({
    db,
    stoppedMs,
    now: () => at,
    log: createLogger({ format: "text", level: "info", write: (line) => void logged.push(line) }),
    mail: withMail ? (_tx, letter) => letters.push(letter) : null,
    note(_tx, row, message) {
      if (row.name === "unloggable") throw new Error("the disk is full");
      notes.push(`${row.name}: ${message}`);
    },
    remove(row, reason) {
      if (row.name === "broken") throw new Error("it can't be deleted");
      removed.push(`${row.name}: ${reason}`);
    },
  });
  return {
    db,
    letters,
    removed,
    notes,
    logged,
    at(ms: number) {
      at = ms;
      retention.check();
    },
  };
}

test("a stopped environment's owner is told 7 days and 1 day before it is deleted after 30", () => {
  const kept = retained({ stoppedMs: 30 * DAY });
  environment(kept.db, owner(kept.db), { name: "old", status: "stopped" });
  environment(kept.db, owner(kept.db), { name: "running" });
  kept.at(22 * DAY);
  expect(kept.letters).toEqual([]);
  for (const day of [23.1, 23.2, 28, 29.1, 29.5]) kept.at(day * DAY);
  expect(kept.letters.map(({ subject }) => subject)).toEqual([
    'Your environment "old" will be deleted on 1970-01-31',
    'Your environment "old" will be deleted on 1970-01-31',
  ]);
  kept.at(30.05 * DAY);
  expect(kept.removed).toEqual([]);
  kept.at(30.1 * DAY);
  expect(kept.removed).toEqual(["old: Deleted after 30 days stopped"]);
});

test.each([
  ["was off for weeks", [], 30, 100],
  ["is given a shorter limit after the first notice", [30, 23.5], 23, 26],
  ["is given a longer limit after the last notice", [30, 29.5], 60, 100],
] as const)("a server that %s deletes nothing without a day's notice", (_, [before, until], days, day) => {
  for (const withMail of [true, false]) {
    const { db } = database;
    const { id } = environment(db, owner(db), { name: "old", status: "stopped" });
    if (until) retained({ stoppedMs: before * DAY, withMail }).at(until * DAY);
    const kept = retained({ stoppedMs: days * DAY, withMail });
    for (const late of [0, 0.5]) kept.at((day + late) * DAY);
    expect(kept.removed).toEqual([]);
    const on = new Date((day + 1) * DAY).toISOString().slice(0, 10);
    expect(kept.letters.map(({ subject }) => subject)).toEqual(
      withMail ? [`Your environment "old" will be deleted on ${on}`] : [],
    );
    expect(kept.notes).toEqual([
      `old: Stopped since 1970-01-01: it will be deleted on ${on}, with all files in it. Start it once to keep it`,
    ]);
    kept.at((day + 1) * DAY);
    expect(kept.removed).toHaveLength(1);
    db.delete(environments).where(eq(environments.id, id)).run();
  }
});

test("notices and deletion are in the server's log", () => {
  const kept = retained({ stoppedMs: 30 * DAY, withMail: false });
  const { id } = environment(kept.db, owner(kept.db), { name: "old", status: "stopped" });
  for (const day of [23.1, 29, 30]) kept.at(day * DAY);
  expect(kept.logged).toEqual([
    expect.stringMatching(
      new RegExp(`INFO +a stopped environment will be deleted environment_id=${id} .*at=1970-01-31`),
    ),
    expect.stringContaining("a stopped environment will be deleted"),
    expect.stringMatching(new RegExp(`INFO +deleting a stopped environment environment_id=${id}`)),
  ]);
  expect(kept.notes).toHaveLength(2);
});

test("a notice that can't be noted is given at the next look, and nothing is deleted on it", () => {
  const kept = retained({ stoppedMs: 30 * DAY, withMail: false });
  environment(kept.db, owner(kept.db), { name: "unloggable", status: "stopped" });
  for (const day of [40, 50]) kept.at(day * DAY);
  expect(kept.removed).toEqual([]);
  expect(kept.logged).toEqual([expect.stringMatching("ERROR"), expect.stringMatching("ERROR")]);
});

test("when it is switched off nobody is told and nothing is deleted", () => {
  const kept = retained({ stoppedMs: null });
  environment(kept.db, owner(kept.db), { status: "stopped" });
  kept.at(1000 * DAY);
  expect([...kept.letters, ...kept.notes, ...kept.removed]).toEqual([]);
});

test("where one can't be deleted the others are", () => {
  const kept = retained({ stoppedMs: 30 * DAY, withMail: false });
  for (const name of ["broken", "sound"]) {
    environment(kept.db, owner(kept.db), { name, status: "stopped" });
  }
  for (const day of [29, 30]) kept.at(day * DAY);
  expect(kept.removed).toEqual(["sound: Deleted after 30 days stopped"]);
  expect(kept.logged.filter((line) => line.includes("ERROR"))).toEqual([
    expect.stringContaining("it can't be deleted"),
  ]);
});

test("the record of a terminated environment can be read for 30 days, and longer while anything is left of it", () => {
  const kept = retained({ stoppedMs: null });
  const rows = environmentRows(kept.db);
  const user = owner(kept.db);
  const values = { status: "terminated", desired: "terminated", terminatedAt: 0 } as const;
  const gone = environment(kept.db, user, { ...values, tornDownAt: 1 });
  const stuck = environment(kept.db, user, values);
  kept.at(29 * DAY);
  expect(rows.byId(gone.id)).toBeDefined();
  kept.at(31 * DAY);
  expect(rows.byId(gone.id)).toBeUndefined();
  expect(rows.byId(stuck.id)).toBeDefined();
});
