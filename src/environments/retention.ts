import { and, eq, isNotNull, lt } from "drizzle-orm";
import { type Db, inTransaction, type Tx } from "../db/open.ts";
import { environments, users } from "../db/schema.ts";
import { every } from "../lib/every.ts";
import type { Logger } from "../lib/logger.ts";
import type { Letter } from "../mail/message.ts";
import type { Environment } from "./rows.ts";

const DAY_MS = 86_400_000;
const CHECK_MS = 600_000;
/** The record of a terminated environment can be read for so long. */
const RECORD_MS = 30 * DAY_MS;
/** The owner has this long from the last notice on, however late that is. */
const LAST_NOTICE_MS = DAY_MS;
/** Before a stopped environment is deleted its owner is told, so long before: in its log, and by mail. */
const NOTICES_MS = [7 * DAY_MS, LAST_NOTICE_MS];

export interface RetentionOptions {
  db: Db;
  /** How long a stopped environment is kept; null: for ever. */
  stoppedMs: number | null;
  now(): number;
  log: Logger;
  /** Puts a message to the owner into the outbox; null where mail is not configured. */
  mail: ((tx: Tx, letter: Letter) => void) | null;
  /** A line of DevPocket's own in the environment's log. */
  note(tx: Tx, row: Environment, message: string): void;
  /** Deletes it as a verb of DevPocket's own, with the reason in the audit. */
  remove(row: Environment, reason: string): void;
}

interface Owner {
  email: string;
  username: string;
}

export interface Retention {
  /** Looks once; `start` does so every ten minutes. */
  check(): void;
  start(): void;
  stop(): void;
}

/** Deletes stopped environments that nobody comes back to, and the records of terminated ones. */
export function createRetention({
  db,
  stoppedMs,
  now,
  log,
  mail,
  note,
  remove,
}: RetentionOptions): Retention {
  let timer: Timer | undefined;

  function check(): void {
    purgeRecords();
    if (stoppedMs === null) return;
    const at = now();
    const firstNoticeMs = Math.min(stoppedMs, NOTICES_MS[0] ?? 0);
    const stopped = db
      .select({ environment: environments, owner: { email: users.email, username: users.username } })
      .from(environments)
      .innerJoin(users, eq(users.id, environments.userId))
      .where(
        and(eq(environments.status, "stopped"), lt(environments.statusSince, at - stoppedMs + firstNoticeMs)),
      )
      .all();
    for (const { environment, owner } of stopped) {
      try {
        consider(environment, owner, stoppedMs, at);
      } catch (error) {
        log.error("a stopped environment was neither told of nor deleted", {
          environment_id: environment.id,
          error,
        });
      }
    }
  }

  function consider(row: Environment, owner: Owner, keptMs: number, at: number): void {
    const deleteAt = row.statusSince + keptMs;
    const noticeAt = row.deletionNoticeAt ?? Number.NEGATIVE_INFINITY;
    const due = noticesDue(deleteAt, at);
    // The limit may have changed since: what was sent before its time now was of another day.
    const sent = Math.min(row.deletionNotices, noticesDue(deleteAt, noticeAt));
    if (due > sent) {
      announce(row, owner, { notices: due, at, deleteAt: Math.max(deleteAt, at + LAST_NOTICE_MS) });
    } else if (deleteAt <= at && noticeAt + LAST_NOTICE_MS <= at) {
      remove(row, `Deleted after ${Math.round(keptMs / DAY_MS)} days stopped`);
      log.info("deleting a stopped environment", { environment_id: row.id, owner: row.userId });
    }
  }

  function announce(
    row: Environment,
    owner: Owner,
    { notices, at, deleteAt }: { notices: number; at: number; deleteAt: number },
  ): void {
    inTransaction(db, (tx) => {
      tx.update(environments)
        .set({ deletionNotices: notices, deletionNoticeAt: at })
        .where(eq(environments.id, row.id))
        .run();
      note(tx, row, deletionNote(row, deleteAt));
      mail?.(tx, deletionLetter(row, owner, deleteAt));
    });
    log.info("a stopped environment will be deleted", {
      environment_id: row.id,
      owner: row.userId,
      at: dayOf(deleteAt),
    });
  }

  function purgeRecords(): void {
    db.delete(environments)
      .where(and(isNotNull(environments.tornDownAt), lt(environments.terminatedAt, now() - RECORD_MS)))
      .run();
  }

  return {
    check,
    start() {
      timer = every(CHECK_MS, check, (error) => log.error("deleting what is old failed", { error }));
    },
    stop: () => clearInterval(timer),
  };
}

/** How many notices of a deletion at `deleteAt` have their time at `at`. */
function noticesDue(deleteAt: number, at: number): number {
  return NOTICES_MS.filter((beforeMs) => deleteAt - beforeMs <= at).length;
}

function dayOf(ms: number): string {
  return new Date(ms).toISOString().slice(0, 10);
}

function deletionNote({ statusSince }: Environment, deleteAt: number): string {
  return `Stopped since ${dayOf(statusSince)}: it will be deleted on ${dayOf(deleteAt)}, with all files in it. Start it once to keep it`;
}

function deletionLetter(row: Environment, { email, username }: Owner, deleteAt: number): Letter {
  const day = dayOf(deleteAt);
  return {
    userId: row.userId,
    recipient: email,
    subject: `Your environment "${row.name}" will be deleted on ${day}`,
    paragraphs: [
      `Hello ${username}, your environment "${row.name}" has been stopped since ${dayOf(row.statusSince)}. It will be deleted on ${day}, with all files in it.`,
      "Start it once to keep it.",
    ],
  };
}
