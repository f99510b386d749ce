import { eq } from "drizzle-orm";
import { audit } from "../audit/audit.ts";
import { type Db, type DbOrTx, inTransaction, type Tx } from "../db/open.ts";
import { users } from "../db/schema.ts";
import { AppError } from "../errors.ts";
import { actorOf } from "../http/audit-actor.ts";
import type { Origin } from "../http/context.ts";
import { findByName, type User } from "./account.ts";
import { forgetFailures, lockFault, recordFailure } from "./lockout.ts";
import type { Passwords } from "./passwords.ts";
import type { RefreshToken, Sessions } from "./sessions.ts";

export interface SignInDeps {
  db: Db;
  now: () => number;
  passwords: Passwords;
  sessions: Sessions;
}

export interface SignedIn {
  user: User;
  token: RefreshToken;
}

const LOCKED = { reason: "locked" };

/**
 * Signs in with a username or address and a password.
 *
 * @throws AppError unauthenticated in the same words and after the same time for an unknown name; locked
 * after too many failures; forbidden for the owner of a deactivated account
 */
export async function signIn(
  deps: SignInDeps,
  { name, password }: { name: string; password: string },
  origin: Origin,
): Promise<SignedIn> {
  const { db, now, passwords } = deps;
  const found = findByName(db, name);
  const locked = lockFault(db, { name }, now());
  if (locked) {
    throw refusedSignIn(db, { user: found, error: locked, detail: LOCKED, origin, now: now() });
  }

  const passwordHash = found && !isLocked(db, found, now()) ? found.passwordHash : null;
  const matches = await passwords.verify(password, passwordHash);
  const rehashed =
    matches && passwordHash && passwords.isOutdated(passwordHash)
      ? await passwords.hash(password)
      : undefined;

  const outcome = inTransaction(db, (tx): SignedIn | AppError => {
    const at = now();
    // Read again: the account may have changed while the password was hashed.
    const user = found && tx.select().from(users).where(eq(users.id, found.id)).get();
    const attempt = { name, user, origin, now: at };
    // Of attempts that were checked side by side, those after the locking one learn nothing either.
    const lock = lockFault(tx, { name }, at);
    if (lock) return refusedSignIn(tx, { ...attempt, error: lock, detail: LOCKED });
    if (!matches || !user || isLocked(tx, user, at) || user.passwordHash !== passwordHash) {
      return failedSignIn(tx, attempt);
    }
    if (!user.isActive) {
      return refusedSignIn(tx, { ...attempt, error: deactivated(), detail: { reason: "deactivated" } });
    }
    forgetFailures(tx, user);
    return openSession(tx, deps, { user, origin, method: "password", ...(rehashed && { rehashed }) });
  });
  if (outcome instanceof AppError) throw outcome;
  return outcome;
}

/**
 * Whether failures under whichever of its names have locked the account. Under another name it is answered as
 * a wrong password is, whatever was sent: to say "locked" would say that both names are of one account.
 */
function isLocked(db: DbOrTx, user: User, now: number): boolean {
  return lockFault(db, { userId: user.id }, now) !== undefined;
}

/** Begins a session for a user whose identity is proven, whichever way. */
export function openSession(
  tx: Tx,
  { now, sessions }: Pick<SignInDeps, "now" | "sessions">,
  { user, origin, method, rehashed }: { user: User; origin: Origin; method: string; rehashed?: string },
): SignedIn {
  const at = now();
  const token = sessions.begin(tx, user.id, origin);
  const signedIn = tx
    .update(users)
    .set({ lastLogin: at, ...(rehashed && { passwordHash: rehashed }) })
    .where(eq(users.id, user.id))
    .returning()
    .get();
  audit(
    tx,
    actorOf(origin, user),
    { action: "auth.login", targetId: user.id, detail: { method, session: token.sessionId } },
    at,
  );
  return { user: signedIn, token };
}

export function deactivated(): AppError {
  return new AppError("forbidden", "Account is deactivated");
}

interface Refusal {
  user: User | undefined;
  error: AppError;
  /** For the audit. */
  detail: { reason: string; method?: string; locked?: true };
  origin: Origin;
  now: number;
}

/** Audits the refusal of a sign-in and gives the error, to be thrown when that is committed. */
export function refusedSignIn(db: DbOrTx, { user, error, detail, origin, now }: Refusal): AppError {
  const entry = { action: "auth.login", ...(user && { targetId: user.id }), detail };
  audit(db, actorOf(origin, user), { ...entry, outcome: "failure" }, now);
  return error;
}

function failedSignIn(
  tx: Tx,
  { name, user, origin, now }: { name: string; user: User | undefined; origin: Origin; now: number },
): AppError {
  const wasLocked = user !== undefined && isLocked(tx, user, now);
  const locksName = recordFailure(tx, { name }, now);
  // A lock is not made longer by what is tried meanwhile.
  const locksAccount = user !== undefined && !wasLocked && recordFailure(tx, { userId: user.id }, now);
  const reason = user ? (wasLocked ? "locked" : "wrong_password") : "unknown_name";
  const detail = { reason, ...((locksName || locksAccount) && { locked: true as const }) };
  const error = new AppError("unauthenticated", "Incorrect username or password");
  return refusedSignIn(tx, { user, error, detail, origin, now });
}
