import { createHash } from "node:crypto";
import { eq } from "drizzle-orm";
import type { DbOrTx, Tx } from "../db/open.ts";
import { signInFailures } from "../db/schema.ts";
import { AppError } from "../errors.ts";
import { nameKey } from "./account.ts";

const FAILURES_BEFORE_LOCK = 5;
const LOCK_MS = 15 * 60_000;

/** The refusal while sign-in under this name is locked. Known and unknown names lock alike. */
export function lockFault(db: DbOrTx, name: string, now: number): AppError | undefined {
  const row = db
    .select({ lockedUntil: signInFailures.lockedUntil })
    .from(signInFailures)
    .where(eq(signInFailures.nameHash, nameHash(name)))
    .get();
  if (!row?.lockedUntil || row.lockedUntil <= now) return undefined;
  return new AppError("locked", "Account temporarily locked after too many failed sign-in attempts", {
    retryAfterSeconds: Math.ceil((row.lockedUntil - now) / 1000),
  });
}

/** Counts a failure; older ones than a lock lasts are forgotten. @returns whether it locked the name */
export function recordFailure(tx: Tx, name: string, now: number): boolean {
  const hash = nameHash(name);
  const before = tx.select().from(signInFailures).where(eq(signInFailures.nameHash, hash)).get();
  const failures = before && now - before.lastFailureAt < LOCK_MS ? before.failures + 1 : 1;
  const locks = failures >= FAILURES_BEFORE_LOCK;
  const row = { failures, lastFailureAt: now, lockedUntil: locks ? now + LOCK_MS : null };
  tx.insert(signInFailures)
    .values({ nameHash: hash, ...row })
    .onConflictDoUpdate({ target: signInFailures.nameHash, set: row })
    .run();
  return locks;
}

export function forgetFailures(tx: Tx, name: string): void {
  tx.delete(signInFailures)
    .where(eq(signInFailures.nameHash, nameHash(name)))
    .run();
}

/** What was typed may be anything, a password too: only its hash is kept. */
function nameHash(name: string): string {
  return createHash("sha256").update(nameKey(name)).digest("hex");
}
