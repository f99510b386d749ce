import { eq } from "drizzle-orm";
import { audit } from "../audit/audit.ts";
import { type Db, type DbOrTx, inTransaction, type Tx } from "../db/open.ts";
import { users } from "../db/schema.ts";
import { AppError } from "../errors.ts";
import { actorOf } from "../http/audit-actor.ts";
import type { Origin } from "../http/context.ts";
import type { Mailer } from "../mail/mailer.ts";
import { nameKey, type User } from "./account.ts";
import { endActionTokens, findActionToken, issueActionToken, sendWaitMs } from "./action-tokens.ts";
import { unlinkOtherGoogle } from "./google-accounts.ts";
import { forgetFailures } from "./lockout.ts";
import { passwordFault } from "./password-policy.ts";
import type { Passwords } from "./passwords.ts";
import type { Sessions } from "./sessions.ts";

const RESET_MS = 3_600_000;

export interface PasswordResetDeps {
  db: Db;
  now: () => number;
  mailer: Mailer;
  baseUrl: string;
  passwords: Passwords;
  sessions: Sessions;
}

/**
 * Sends a link to the owner of this address, if there is one; the caller learns nothing either way. Earlier
 * links stay good, and who asks too often has no more sent: nobody can take a link away from its owner.
 */
export function requestPasswordReset(
  { db, now, mailer, baseUrl }: PasswordResetDeps,
  email: string,
  origin: Origin,
): void {
  inTransaction(db, (tx) => {
    const user = tx
      .select()
      .from(users)
      .where(eq(users.emailKey, nameKey(email)))
      .get();
    const refusal = refusalToSend(tx, user, now());
    if (user && !refusal) {
      const { token } = issueActionToken(
        tx,
        { userId: user.id, email: user.email, purpose: "reset_password", lifeMs: RESET_MS },
        now(),
      );
      mailer.enqueue(tx, {
        userId: user.id,
        recipient: user.email,
        subject: "Reset your password",
        paragraphs: [
          `Hello ${user.username}, a new password was asked for.`,
          "The link can be used once, within an hour. If you did not ask for this, do nothing: your password stays as it is.",
        ],
        link: { label: "Choose a new password", url: `${baseUrl}/reset-password?token=${token}` },
      });
    }
    const entry = {
      action: "auth.password_forgot",
      ...(user && { targetId: user.id }),
      ...(refusal && { outcome: "failure" as const, detail: { reason: refusal } }),
    };
    audit(tx, actorOf(origin, user), entry, now());
  });
}

function refusalToSend(tx: Tx, user: User | undefined, now: number): string | undefined {
  if (!user) return "unknown_address";
  if (!user.isActive) return "deactivated";
  return sendWaitMs(tx, user.id, "reset_password", now) > 0 ? "sent_before" : undefined;
}

/**
 * Sets a new password with a link's token; everyone signed in as this user is signed out, and a Google
 * account of another address no longer signs in as them.
 *
 * @throws AppError invalid for a token that can't be used, validation for a weak password, which leaves it usable
 */
export async function resetPasswordByLink(
  deps: PasswordResetDeps,
  { token, newPassword }: { token: string; newPassword: string },
  origin: Origin,
): Promise<void> {
  const { db, now, passwords } = deps;
  const owner = ownerOfToken(db, token, now());
  if (!owner) throw unusableToken(db, origin, now());
  const fault = passwordFault(newPassword, owner, "new_password");
  if (fault) throw fault;
  const passwordHash = await passwords.hash(newPassword);

  const refusal = inTransaction(db, (tx) => {
    // Read again: of two requests with one token, one counts.
    const user = ownerOfToken(tx, token, now());
    if (!user) return unusableToken(tx, origin, now());
    endActionTokens(tx, user.id, "reset_password", now());
    forgetFailures(tx, user);
    deps.sessions.endAll(tx, user.id);
    // Whoever has the link reads the mailbox: the address is theirs.
    tx.update(users)
      .set({ passwordHash, isVerified: true, updatedAt: now() })
      .where(eq(users.id, user.id))
      .run();
    const actor = actorOf(origin, user);
    audit(tx, actor, { action: "auth.password_reset", targetId: user.id }, now());
    unlinkOtherGoogle(tx, user, actor, now());
    tellPasswordChanged(tx, deps.mailer, user);
    return undefined;
  });
  if (refusal) throw refusal;
}

/** The owner hears of it even when it was not they who changed it. */
export function tellPasswordChanged(tx: Tx, mailer: Mailer, user: User): void {
  mailer.enqueue(tx, {
    userId: user.id,
    recipient: user.email,
    subject: "Your password was changed",
    paragraphs: [
      `Hello ${user.username}, the password of your account was changed and every device was signed out.`,
      "If that was not you, ask for a new password at once and tell your administrator.",
    ],
  });
}

function ownerOfToken(db: DbOrTx, token: string, now: number): User | undefined {
  const row = findActionToken(db, "reset_password", token, now);
  if (!row) return undefined;
  const user = db.select().from(users).where(eq(users.id, row.userId)).get();
  return user?.isActive && user.emailKey === nameKey(row.email) ? user : undefined;
}

/** Audits it too; to be thrown when that is committed. */
function unusableToken(db: DbOrTx, origin: Origin, now: number): AppError {
  const detail = { reason: "invalid_token" };
  audit(db, actorOf(origin, undefined), { action: "auth.password_reset", outcome: "failure", detail }, now);
  return new AppError("invalid", "Invalid or expired reset token");
}
