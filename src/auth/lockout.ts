import { createHash } from "node:crypto";
import { eq, inArray } from "drizzle-orm";
import type { DbOrTx, Tx } from "../db/open.ts";
import { signInFailures } from "../db/schema.ts";
import { AppError } from "../errors.ts";
import { nameKey, type User } from "./account.ts";

const FAILURES_BEFORE_LOCK = 5;
const LOCK_MS = 15 * 60_000;

/** What failures are counted for: a name as it was typed, known or not, and an account whatever it was called. */
export type LockSubject = { name: string } | { userId: string };

/** The refusal while sign-in is locked. Known and unknown names lock alike. */
export function lockFault(db: DbOrTx, subject: LockSubject, now: number): AppError | undefined {
  const row = db
    .select({ lockedUntil: signInFailures.lockedUntil })
    .from(signInFailures)
    .where(eq(signInFailures.subjectHash, subjectHash(subject)))
    .get();
  if (!row?.lockedUntil || row.lockedUntil <= now) return undefined;
  return new AppError("locked", "Account temporarily locked after too many failed sign-in attempts", {
    retryAfterSeconds: Math.ceil((row.lockedUntil - now) / 1000),
  });
}

/** Counts a failure; older ones than a lock lasts are forgotten. @returns whether it locked the subject */
export function recordFailure(tx: Tx, subject: LockSubject, now: number): boolean {
  const hash = subjectHash(subject);
  const before = tx.select().from(signInFailures).where(eq(signInFailures.subjectHash, hash)).get();
  const failures = before && now - before.lastFailureAt < LOCK_MS ? before.failures + 1 : 1;
  const locks = failures >= FAILURES_BEFORE_LOCK;
  const row = { failures, lastFailureAt: now, lockedUntil: locks ? now + LOCK_MS : null };
  tx.insert(signInFailures)
    .values({ subjectHash: hash, ...row })
    .onConflictDoUpdate({ target: signInFailures.subjectHash, set: row })
    .run();
  return locks;
}

/** Forgets the failures of an account and of its names. */
export function forgetFailures(tx: Tx, { id, username, email }: User): void {
  const subjects: LockSubject[] = [{ userId: id }, { name: username }, { name: email }];
  tx.delete(signInFailures)
    .where(inArray(signInFailures.subjectHash, subjects.map(subjectHash)))
    .run();
}

/** What was typed may be anything, a password too: only its hash is kept. */
function subjectHash(subject: LockSubject): string {
  const text = "name" in subject ? `name:${nameKey(subject.name)}` : `user:${subject.userId}`;
  return createHash("sha256").update(text).digest("hex");
}
