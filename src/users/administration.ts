import { and, count, desc, eq, isNull, ne } from "drizzle-orm";
import { type AuditActor, audit } from "../audit/audit.ts";
import type { User } from "../auth/account.ts";
import type { Sessions } from "../auth/sessions.ts";
import { type Db, type DbOrTx, inTransaction } from "../db/open.ts";
import { type Plan, type Role, users } from "../db/schema.ts";
import { AppError, notFound } from "../errors.ts";
import type { Page } from "../http/pagination.ts";
import type { UserEvent } from "./events.ts";

/** What an administrator may change of a user; what is absent stays. */
export interface UserChange {
  plan?: Plan;
  role?: Role;
  isActive?: boolean;
}

interface AdministrationDeps {
  db: Db;
  now: () => number;
  sessions: Sessions;
  /** Has the user's environments stopped, in the transaction that deactivates the account. */
  onUserDeactivated: UserEvent;
}

/** Users that are not deleted, newest first, and how many there are. */
export function listUsers(db: Db, { limit, offset }: Page): { users: User[]; total: number } {
  const present = isNull(users.deletedAt);
  const page = db.select().from(users).where(present).orderBy(desc(users.id)).limit(limit).offset(offset);
  const total = db.select({ total: count() }).from(users).where(present).get()?.total ?? 0;
  return { users: page.all(), total };
}

/** @throws AppError not_found, or conflict when no active administrator would be left */
export function updateUser(
  { db, now, sessions, onUserDeactivated }: AdministrationDeps,
  userId: string,
  change: UserChange,
  actor: AuditActor,
): User {
  return inTransaction(db, (tx) => {
    const before = tx
      .select()
      .from(users)
      .where(and(eq(users.id, userId), isNull(users.deletedAt)))
      .get();
    if (!before) throw notFound("User");
    if (change.role === "user" || change.isActive === false) requireAnotherAdmin(tx, before);
    const user = tx
      .update(users)
      .set({ ...change, updatedAt: now() })
      .where(eq(users.id, userId))
      .returning()
      .get();
    if (before.isActive && !user.isActive) {
      sessions.endAll(tx, userId);
      onUserDeactivated(tx, userId);
    }
    audit(
      tx,
      actor,
      { action: "user.administer", targetId: userId, detail: differences(before, user) },
      now(),
    );
    return user;
  });
}

/**
 * Somebody must always be able to administer the server.
 *
 * @throws AppError conflict when `user` is the last active administrator
 */
export function requireAnotherAdmin(db: DbOrTx, user: User): void {
  if (user.role !== "admin" || !user.isActive) return;
  const another = db
    .select({ id: users.id })
    .from(users)
    .where(and(eq(users.role, "admin"), eq(users.isActive, true), ne(users.id, user.id)))
    .get();
  if (!another) {
    throw new AppError("conflict", "The last active administrator can't be deleted, demoted or deactivated");
  }
}

const AUDITED = [
  ["subscription_plan", "plan"],
  ["role", "role"],
  ["is_active", "isActive"],
] as const;

function differences(before: User, after: User): Record<string, unknown> {
  return Object.fromEntries(
    AUDITED.filter(([, field]) => before[field] !== after[field]).map(([name, field]) => [
      name,
      { from: before[field], to: after[field] },
    ]),
  );
}
