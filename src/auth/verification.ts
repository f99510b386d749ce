import { eq } from "drizzle-orm";
import { type AuditActor, audit } from "../audit/audit.ts";
import { type Db, inTransaction, type Tx } from "../db/open.ts";
import { users } from "../db/schema.ts";
import { AppError } from "../errors.ts";
import { actorOf } from "../http/audit-actor.ts";
import type { Origin } from "../http/context.ts";
import type { Mailer } from "../mail/mailer.ts";
import { nameKey, ownAccount, type User } from "./account.ts";
import {
  type ActionToken,
  endActionTokens,
  findActionToken,
  issueActionToken,
  sendWaitMs,
  tryCode,
} from "./action-tokens.ts";

const VERIFICATION_MS = 24 * 3_600_000;

export interface VerificationDeps {
  db: Db;
  now: () => number;
  mailer: Mailer;
  /** Where links lead to, without a slash at its end. */
  baseUrl: string;
}

/**
 * Sends a link and a code that prove the user's present address; earlier ones end.
 *
 * @throws AppError rate_limited when too many were sent for this account
 */
export function sendVerification(
  tx: Tx,
  { now, mailer, baseUrl }: Omit<VerificationDeps, "db">,
  user: Pick<User, "id" | "username" | "email">,
): void {
  const at = now();
  const waitMs = sendWaitMs(tx, user.id, "verify_email", at);
  if (waitMs > 0) {
    throw new AppError("rate_limited", "Too many verification messages. Try again later.", {
      retryAfterSeconds: Math.ceil(waitMs / 1000),
    });
  }
  endActionTokens(tx, user.id, "verify_email", at);
  const { token, code } = issueActionToken(
    tx,
    { userId: user.id, email: user.email, purpose: "verify_email", lifeMs: VERIFICATION_MS },
    at,
  );
  mailer.enqueue(tx, {
    userId: user.id,
    recipient: user.email,
    subject: "Verify your email address",
    paragraphs: [
      `Hello ${user.username}, please confirm that this address is yours.`,
      `Or enter this code where you are signed in: ${code}`,
      "Both can be used once, within 24 hours. If you did not ask for this, do nothing.",
    ],
    link: { label: "Verify email address", url: `${baseUrl}/verify-email?token=${token}` },
  });
}

/** @throws AppError invalid, code `already_verified`; rate_limited when too many were sent */
export function resendVerification(deps: VerificationDeps, userId: string, actor: AuditActor): void {
  inTransaction(deps.db, (tx) => {
    const user = ownAccount(tx, userId);
    if (user.isVerified) {
      const message = "Email is already verified";
      throw new AppError("invalid", message, {
        fields: [{ field: "email", message, code: "already_verified" }],
      });
    }
    sendVerification(tx, deps, user);
    audit(tx, actor, { action: "auth.verification_send", targetId: user.id }, deps.now());
  });
}

/** @throws AppError invalid for a link that was never sent, was used, has expired or is for an older address */
export function verifyByLink({ db, now }: VerificationDeps, token: string, origin: Origin): void {
  const verified = inTransaction(db, (tx) => {
    const row = findActionToken(tx, "verify_email", token, now());
    const user = row && tx.select().from(users).where(eq(users.id, row.userId)).get();
    return settle(tx, { row, user, actor: actorOf(origin, user), method: "link", now: now() });
  });
  if (!verified) throw new AppError("invalid", "Invalid or expired verification token");
}

/** @throws AppError invalid for a wrong code, and for any after too many wrong ones */
export function verifyByCode(
  { db, now }: VerificationDeps,
  { userId, code }: { userId: string; code: string },
  actor: AuditActor,
): void {
  const verified = inTransaction(db, (tx) => {
    const row = tryCode(tx, { userId, purpose: "verify_email", code }, now());
    const user = tx.select().from(users).where(eq(users.id, userId)).get();
    return settle(tx, { row, user, actor, method: "code", now: now() });
  });
  // Thrown only after the commit: the try must count.
  if (!verified) throw new AppError("invalid", "Invalid or expired verification code");
}

interface Attempt {
  row: ActionToken | undefined;
  user: User | undefined;
  actor: AuditActor;
  method: "link" | "code";
  now: number;
}

function settle(tx: Tx, { row, user, actor, method, now }: Attempt): boolean {
  const isRight = row !== undefined && user?.emailKey === nameKey(row.email) && user.isActive;
  if (isRight) {
    tx.update(users).set({ isVerified: true, updatedAt: now }).where(eq(users.id, user.id)).run();
    endActionTokens(tx, user.id, "verify_email", now);
  }
  const entry = {
    action: "auth.email_verify",
    ...(user && { targetId: user.id }),
    outcome: isRight ? ("success" as const) : ("failure" as const),
    detail: { method },
  };
  audit(tx, actor, entry, now);
  return isRight;
}
