import { eq } from "drizzle-orm";
import { type AuditActor, audit } from "../audit/audit.ts";
import { nameKey, ownAccount, takenNames, type User } from "../auth/account.ts";
import { sendVerification, type VerificationDeps } from "../auth/verification.ts";
import { inTransaction } from "../db/open.ts";
import { users } from "../db/schema.ts";
import { AppError } from "../errors.ts";

/** What a user may change of themselves; what is absent stays. */
export interface ProfileChange {
  fullName?: string | null;
  avatarUrl?: string | null;
  email?: string;
}

/**
 * Changes a user's own profile. A new address is unverified and gets a message; so does the old one.
 *
 * @throws AppError invalid when another account has the address, rate_limited for too many new ones
 */
export function updateProfile(
  deps: VerificationDeps,
  userId: string,
  change: ProfileChange,
  actor: AuditActor,
): User {
  const { db, now, mailer } = deps;
  return inTransaction(db, (tx) => {
    const before = ownAccount(tx, userId);
    const { email } = change;
    const isNewAddress = email !== undefined && nameKey(email) !== before.emailKey;
    if (isNewAddress) {
      const fields = takenNames(tx, { email }, userId);
      if (fields.length > 0) throw new AppError("invalid", "Email already exists", { fields });
    }
    const user = tx
      .update(users)
      .set({
        ...change,
        ...(email !== undefined && { emailKey: nameKey(email) }),
        ...(isNewAddress && { isVerified: false }),
        updatedAt: now(),
      })
      .where(eq(users.id, userId))
      .returning()
      .get();
    if (isNewAddress) {
      sendVerification(tx, deps, user);
      mailer.enqueue(tx, addressChangedLetter(before));
    }
    // Which fields, not what is in them: audit rows outlive accounts.
    const entry = { action: "user.update", targetId: userId, detail: { fields: Object.keys(change) } };
    audit(tx, actor, entry, now());
    return user;
  });
}

function addressChangedLetter({ id, username, email }: User) {
  return {
    userId: id,
    recipient: email,
    subject: "The email address of your account was changed",
    paragraphs: [
      `Hello ${username}, your account now has another email address; no more messages come here.`,
      "If that was not you, change your password and tell your administrator.",
    ],
  };
}
