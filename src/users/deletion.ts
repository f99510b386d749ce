import { and, eq, inArray, isNotNull, isNull, notExists } from "drizzle-orm";
import { type AuditActor, audit } from "../audit/audit.ts";
import { ownAccount } from "../auth/account.ts";
import { forgetFailures } from "../auth/lockout.ts";
import type { Sessions } from "../auth/sessions.ts";
import { type Db, type DbOrTx, inTransaction } from "../db/open.ts";
import { actionTokens, auditLog, environments, users } from "../db/schema.ts";
import type { Mailer } from "../mail/mailer.ts";
import { requireAnotherAdmin } from "./administration.ts";
import type { UserEvent } from "./events.ts";

interface DeletionDeps {
  db: Db;
  now: () => number;
  mailer: Mailer;
  sessions: Sessions;
  /** Has the user's environments torn down, in the transaction that deletes the account. */
  onUserDeleted: UserEvent;
}

/**
 * Deletes an account: signed out at once, nothing personal left. The empty row stays for its environments
 * until they are torn down; audit rows keep the id alone.
 *
 * @throws AppError conflict for the last active administrator
 */
export function deleteAccount(deps: DeletionDeps, userId: string, { requestId }: AuditActor): void {
  const { db, now, mailer, sessions, onUserDeleted } = deps;
  inTransaction(db, (tx) => {
    const user = ownAccount(tx, userId);
    requireAnotherAdmin(tx, user);
    onUserDeleted(tx, userId);
    sessions.endAll(tx, userId);
    tx.delete(actionTokens).where(eq(actionTokens.userId, userId)).run();
    mailer.forget(tx, userId);
    forgetFailures(tx, user);
    // No registered name can be one of these: too long, and a domain that will never be (RFC 2606).
    const blank = { username: `deleted-${userId}`, email: `deleted-${userId}@deleted.invalid` };
    tx.update(users)
      .set({
        ...blank,
        usernameKey: blank.username,
        emailKey: blank.email,
        passwordHash: null,
        googleSub: null,
        googleEmailKey: null,
        fullName: null,
        avatarUrl: null,
        isActive: false,
        isVerified: false,
        lastLogin: null,
        updatedAt: now(),
        deletedAt: now(),
      })
      .where(eq(users.id, userId))
      .run();
    tx.update(auditLog)
      .set({ username: null, ip: null, userAgent: null })
      .where(eq(auditLog.userId, userId))
      .run();
    const nameless = { userId, username: null, ip: null, userAgent: null, requestId };
    audit(tx, nameless, { action: "user.delete", targetId: userId }, now());
  });
}

/**
 * Removes the rows of deleted users whose environments are torn down, and the environments' with their
 * names, variables and logs.
 *
 * @returns how many users
 */
export function removeDeletedUsers(db: Db): number {
  return inTransaction(db, (tx) => {
    const gone = tx
      .select({ id: users.id })
      .from(users)
      .where(and(isNotNull(users.deletedAt), notExists(environmentsLeft(tx))))
      .all()
      .map(({ id }) => id);
    if (gone.length === 0) return 0;
    tx.delete(environments).where(inArray(environments.userId, gone)).run();
    tx.delete(users).where(inArray(users.id, gone)).run();
    return gone.length;
  });
}

function environmentsLeft(tx: DbOrTx) {
  return tx
    .select({ id: environments.id })
    .from(environments)
    .where(and(eq(environments.userId, users.id), isNull(environments.tornDownAt)));
}
