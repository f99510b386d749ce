import { afterEach, beforeEach, expect, test } from "bun:test";
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
  const logged: string[] = [];
  const retention = createRetention({
    db,
    stoppedMs,
    now: () => at,
    log: createLogger({ format: "text", level: "error", write: (line) => void logged.push(line) }),
    mail: withMail ? (_tx, letter) => letters.push(letter) : null,
    remove(row, reason) {
      if (row.name === "broken") throw new Error("it can't be deleted");
      removed.push(`${row.name}: ${reason}`);
    },
  });
  return {
    db,
    letters,
    removed,
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
  const { db } = database;
  environment(db, owner(db), { name: "old", status: "stopped" });
  if (until) retained({ stoppedMs: before * DAY }).at(until * DAY);
  const kept = retained({ stoppedMs: days * DAY });
  for (const late of [0, 0.5]) kept.at((day + late) * DAY);
  expect(kept.removed).toEqual([]);
  const on = new Date((day + 1) * DAY).toISOString().slice(0, 10);
  expect(kept.letters.map(({ subject }) => subject)).toEqual([
    `Your environment "old" will be deleted on ${on}`,
  ]);
  kept.at((day + 1) * DAY);
  expect(kept.removed).toHaveLength(1);
});

test("without mail nobody is told, and when it is switched off nothing is deleted", () => {
  const kept = retained({ stoppedMs: null });
  const silent = retained({ stoppedMs: 30 * DAY, withMail: false });
  environment(kept.db, owner(kept.db), { status: "stopped" });
  kept.at(1000 * DAY);
  silent.at(29.5 * DAY);
  expect([...kept.letters, ...kept.removed, ...silent.letters]).toEqual([]);
});

test("where one can't be deleted the others are", () => {
  const kept = retained({ stoppedMs: 30 * DAY, withMail: false });
  for (const name of ["broken", "sound"]) {
    environment(kept.db, owner(kept.db), { name, status: "stopped" });
  }
  kept.at(30 * DAY);
  expect(kept.removed).toEqual(["sound: Deleted after 30 days stopped"]);
  expect(kept.logged).toEqual([expect.stringContaining("it can't be deleted")]);
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
