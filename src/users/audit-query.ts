import { and, count, desc, eq, gte, lt, or, type SQL, sql } from "drizzle-orm";
import { nameKey } from "../auth/account.ts";
import type { Db } from "../db/open.ts";
import { type AUDIT_OUTCOMES, auditLog, users } from "../db/schema.ts";
import type { Page } from "../http/pagination.ts";

export type AuditRow = typeof auditLog.$inferSelect;

/** Which rows are meant; what is absent does not matter. */
export interface AuditFilter {
  /** Id or present username of who did it. */
  user?: string | undefined;
  /** "auth.login", or "auth.*" for all that begin so. */
  action?: string | undefined;
  target?: string | undefined;
  outcome?: (typeof AUDIT_OUTCOMES)[number] | undefined;
  /** ms, inclusive. */
  from?: number | undefined;
  /** ms, exclusive. */
  to?: number | undefined;
}

/** A transaction as long as the whole export would hold up checkpoints; so many rows are read at a time. */
const EXPORT_BATCH_ROWS = 500;

/** One page of the audit log, newest first, and how many rows there are. */
export function findAudit(db: Db, filter: AuditFilter, page: Page): { rows: AuditRow[]; total: number } {
  const condition = conditionOf(db, filter);
  const total = db.select({ total: count() }).from(auditLog).where(condition).get()?.total ?? 0;
  const rows = newestFirst(db, condition).limit(page.limit).offset(page.offset).all();
  return { rows, total };
}

/** All of them, newest first, read as they are consumed; rows that come meanwhile are not among them. */
export function* eachAudit(db: Db, filter: AuditFilter): Generator<AuditRow> {
  const condition = conditionOf(db, filter);
  for (let last: AuditRow | undefined; ; ) {
    const after = last && sql`(${auditLog.at}, ${auditLog.id}) < (${last.at}, ${last.id})`;
    const rows = newestFirst(db, and(condition, after)).limit(EXPORT_BATCH_ROWS).all();
    yield* rows;
    last = rows.at(-1);
    if (rows.length < EXPORT_BATCH_ROWS) return;
  }
}

function newestFirst(db: Db, condition: SQL | undefined) {
  return db.select().from(auditLog).where(condition).orderBy(desc(auditLog.at), desc(auditLog.id)).$dynamic();
}

function conditionOf(db: Db, { user, action, target, outcome, from, to }: AuditFilter): SQL | undefined {
  return and(
    user === undefined ? undefined : byUser(db, user),
    action === undefined ? undefined : byAction(action),
    target === undefined ? undefined : eq(auditLog.targetId, target),
    outcome === undefined ? undefined : eq(auditLog.outcome, outcome),
    from === undefined ? undefined : gte(auditLog.at, from),
    to === undefined ? undefined : lt(auditLog.at, to),
  );
}

function byUser(db: Db, user: string): SQL | undefined {
  const ids = db
    .select({ id: users.id })
    .from(users)
    .where(or(eq(users.id, user), eq(users.usernameKey, nameKey(user))))
    .all()
    .map(({ id }) => eq(auditLog.userId, id));
  // A user whose row is gone is still found by id.
  return or(eq(auditLog.userId, user), ...ids);
}

function byAction(action: string): SQL {
  if (!action.endsWith("*")) return eq(auditLog.action, action);
  const prefix = action.slice(0, -1);
  return sql`substr(${auditLog.action}, 1, ${prefix.length}) = ${prefix}`;
}
