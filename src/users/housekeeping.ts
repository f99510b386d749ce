import { and, asc, inArray, lt, lte } from "drizzle-orm";
import { ACTION_TOKENS_KEPT_MS } from "../auth/action-tokens.ts";
import type { Sessions } from "../auth/sessions.ts";
import { type Db, inTransaction } from "../db/open.ts";
import { actionTokens, auditLog, refreshTokens, signInFailures } from "../db/schema.ts";
import type { Logger } from "../lib/logger.ts";
import { removeDeletedUsers } from "./deletion.ts";

const INTERVAL_MS = 3_600_000;
/** Long after a lock of fifteen minutes has ended. */
const FAILURES_KEPT_MS = 86_400_000;
/** So many are deleted in some 10 ms; a million at once would hold up every other write. */
const AUDIT_BATCH_ROWS = 500;

interface HousekeepingOptions {
  db: Db;
  now: () => number;
  log: Logger;
  sessions: Sessions;
  /** null: for ever. */
  auditRetentionMs: number | null;
}

/** Removes, once an hour, what has had its time: of accounts and of the audit log. */
export function createHousekeeping(options: HousekeepingOptions) {
  let timer: ReturnType<typeof setTimeout> | undefined;
  let isStopped = false;

  async function round(): Promise<void> {
    try {
      await tidy(options);
    } catch (error) {
      options.log.error("housekeeping failed", { error });
    }
    if (!isStopped) timer = setTimeout(round, INTERVAL_MS);
  }

  return {
    /** Begins a minute after the start, which has enough to do. */
    start() {
      timer = setTimeout(round, 60_000);
    },
    stop() {
      isStopped = true;
      clearTimeout(timer);
    },
  };
}

/** One round of housekeeping. */
export async function tidy({
  db,
  now,
  sessions,
  auditRetentionMs,
}: Omit<HousekeepingOptions, "log">): Promise<void> {
  const at = now();
  inTransaction(db, (tx) => sessions.endExpired(tx));
  db.delete(refreshTokens).where(lte(refreshTokens.expiresAt, at)).run();
  db.delete(actionTokens)
    .where(and(lte(actionTokens.expiresAt, at), lte(actionTokens.createdAt, at - ACTION_TOKENS_KEPT_MS)))
    .run();
  db.delete(signInFailures)
    .where(lt(signInFailures.lastFailureAt, at - FAILURES_KEPT_MS))
    .run();
  removeDeletedUsers(db);
  if (auditRetentionMs !== null) await dropAuditBefore(db, at - auditRetentionMs);
}

/** Deletes older audit rows, a batch at a time, and lets others in between. @returns how many */
export async function dropAuditBefore(db: Db, before: number): Promise<number> {
  for (let dropped = 0; ; ) {
    const oldest = db
      .select({ id: auditLog.id })
      .from(auditLog)
      .where(lt(auditLog.at, before))
      .orderBy(asc(auditLog.at))
      .limit(AUDIT_BATCH_ROWS);
    const { length } = db
      .delete(auditLog)
      .where(inArray(auditLog.id, oldest))
      .returning({ id: auditLog.id })
      .all();
    dropped += length;
    if (length < AUDIT_BATCH_ROWS) return dropped;
    await Bun.sleep(0);
  }
}
