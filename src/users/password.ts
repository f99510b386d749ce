import { eq } from "drizzle-orm";
import { type AuditActor, audit } from "../audit/audit.ts";
import { ownAccount } from "../auth/account.ts";
import { endActionTokens } from "../auth/action-tokens.ts";
import { forgetFailures, lockFault, recordFailure } from "../auth/lockout.ts";
import { passwordFault } from "../auth/password-policy.ts";
import { tellPasswordChanged } from "../auth/password-reset.ts";
import type { Passwords } from "../auth/passwords.ts";
import type { Sessions } from "../auth/sessions.ts";
import { type Db, type DbOrTx, inTransaction } from "../db/open.ts";
import { users } from "../db/schema.ts";
import { AppError } from "../errors.ts";
import type { Mailer } from "../mail/mailer.ts";

interface PasswordDeps {
  db: Db;
  now: () => number;
  mailer: Mailer;
  passwords: Passwords;
  sessions: Sessions;
}

const ENTRY = { action: "user.password_change" };

/**
 * Changes a user's own password and signs them out everywhere, here too; links to reset it end. Wrong guesses of the current one
 * count as failed sign-ins: a stolen access token is no way to find it out.
 *
 * @throws AppError invalid for a wrong current password, locked after too many, validation for a weak new one
 */
export async function changePassword(
  deps: PasswordDeps,
  userId: string,
  { current, next }: { current: string; next: string },
  actor: AuditActor,
): Promise<void> {
  const { db, now, passwords } = deps;
  const before = ownAccount(db, userId);
  const refused = (tx: DbOrTx, error: AppError, reason: string) => {
    audit(tx, actor, { ...ENTRY, targetId: userId, outcome: "failure", detail: { reason } }, now());
    return error;
  };
  const locked = lockFault(db, { userId }, now());
  if (locked) throw refused(db, locked, "locked");
  const fault = passwordFault(next, before, "new_password");
  if (fault) throw fault;
  const matches = await passwords.verify(current, before.passwordHash);
  const passwordHash = matches ? await passwords.hash(next) : null;

  const refusal = inTransaction(db, (tx) => {
    const lock = lockFault(tx, { userId }, now());
    if (lock) return refused(tx, lock, "locked");
    const user = tx.select().from(users).where(eq(users.id, userId)).get();
    if (!user || passwordHash === null || user.passwordHash !== before.passwordHash) {
      recordFailure(tx, { userId }, now());
      return refused(tx, wrongPassword(), "wrong_password");
    }
    forgetFailures(tx, user);
    tx.update(users).set({ passwordHash, updatedAt: now() }).where(eq(users.id, userId)).run();
    deps.sessions.endAll(tx, userId);
    endActionTokens(tx, userId, "reset_password", now());
    audit(tx, actor, { ...ENTRY, targetId: userId }, now());
    tellPasswordChanged(tx, deps.mailer, user);
    return undefined;
  });
  // Thrown only after the commit: the failure must count.
  if (refusal) throw refusal;
}

function wrongPassword(): AppError {
  const message = "Current password is incorrect";
  return new AppError("invalid", message, {
    fields: [{ field: "current_password", message, code: "incorrect_password" }],
  });
}
