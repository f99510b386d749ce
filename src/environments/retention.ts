import { and, eq, isNotNull, lt, sql } from "drizzle-orm";
import type { Db } from "../db/open.ts";
import { environments, users } from "../db/schema.ts";
import type { Environment } from "./rows.ts";

const DAY_MS = 86_400_000;
const CHECK_MS = 600_000;
/** The record of a terminated environment can be read for so long. */
const RECORD_MS = 30 * DAY_MS;
/** Before a stopped environment is deleted its owner gets mail, so long before. */
const NOTICES_MS = [7 * DAY_MS, DAY_MS];

export interface RetentionOptions {
  db: Db;
  /** How long a stopped environment is kept; null: for ever. */
  stoppedMs: number | null;
  now(): number;
  /** Tells the owner by mail, where mail is configured, that it will be deleted at `deleteAtMs`. */
  notify(row: Environment, owner: { email: string; username: string }, deleteAtMs: number): void;
  /** Deletes it as a verb of DevPocket's own, with the reason in the audit. */
  remove(row: Environment, reason: string): void;
}

export interface Retention {
  /** Looks once; `start` does so every ten minutes. */
  check(): void;
  start(): void;
  stop(): void;
}

/** Deletes stopped environments that nobody comes back to, and the records of terminated ones. */
export function createRetention({ db, stoppedMs, now, notify, remove }: RetentionOptions): Retention {
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
      const deleteAt = environment.statusSince + stoppedMs;
      if (deleteAt <= at) remove(environment, `Deleted after ${Math.round(stoppedMs / DAY_MS)} days stopped`);
      else tell(environment, owner, deleteAt, at);
    }
  }

  /** Each notice is counted before it is sent: a crash may lose one, none is sent twice. */
  function tell(
    row: Environment,
    owner: { email: string; username: string },
    deleteAt: number,
    at: number,
  ): void {
    const due = NOTICES_MS.filter((beforeMs) => deleteAt - at <= beforeMs).length;
    if (due <= row.deletionNotices) return;
    db.update(environments).set({ deletionNotices: due }).where(eq(environments.id, row.id)).run();
    notify(row, owner, deleteAt);
  }

  function purgeRecords(): void {
    db.delete(environments)
      .where(and(isNotNull(environments.tornDownAt), lt(environments.terminatedAt, now() - RECORD_MS)))
      .run();
  }

  return {
    check,
    start() {
      timer = setInterval(check, CHECK_MS);
    },
    stop: () => clearInterval(timer),
  };
}

/**
 * Deletes what is left of an account whose owner has deleted it, once nothing of its environments is left.
 * Personal data was blanked at the request.
 */
export function purgeDeletedUser(db: Db, userId: string): void {
  db.transaction(
    (tx) => {
      const left = tx
        .select({ n: sql<number>`count(*)` })
        .from(environments)
        .where(and(eq(environments.userId, userId), sql`${environments.tornDownAt} is null`))
        .get();
      if (left && left.n > 0) return;
      const deleted = and(eq(users.id, userId), isNotNull(users.deletedAt));
      if (!tx.select({ id: users.id }).from(users).where(deleted).get()) return;
      tx.delete(environments).where(eq(environments.userId, userId)).run();
      tx.delete(users).where(deleted).run();
    },
    { behavior: "immediate" },
  );
}
