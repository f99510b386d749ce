import { eq } from "drizzle-orm";
import { audit } from "../audit/audit.ts";
import { type Db, inTransaction, type Tx } from "../db/open.ts";
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
  // One count for an account, whichever of its names is tried.
  const lockName = found?.username ?? name;
  const locked = lockFault(db, lockName, now());
  if (locked) throw locked;

  const matches = await passwords.verify(password, found?.passwordHash ?? null);
  const rehashed =
    matches && found?.passwordHash && passwords.isOutdated(found.passwordHash)
      ? await passwords.hash(password)
      : undefined;

  const outcome = inTransaction(db, (tx): SignedIn | AppError => {
    // Of attempts that were checked side by side, those after the locking one learn nothing either.
    const lock = lockFault(tx, lockName, now());
    if (lock) return lock;
    // Read again: the account may have changed while the password was hashed.
    const user = found && tx.select().from(users).where(eq(users.id, found.id)).get();
    if (!matches || !user || user.passwordHash !== found.passwordHash) {
      return failedSignIn(tx, { lockName, user, origin, now: now() });
    }
    if (!user.isActive) return refusedSignIn(tx, { user, origin, now: now() });
    forgetFailures(tx, lockName);
    return openSession(tx, deps, { user, origin, method: "password", ...(rehashed && { rehashed }) });
  });
  if (outcome instanceof AppError) throw outcome;
  return outcome;
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

/** Audits the refusal of a deactivated account; the caller throws after the commit. */
export function refusedSignIn(
  tx: Tx,
  { user, origin, now }: { user: User; origin: Origin; now: number },
): AppError {
  const entry = { action: "auth.login", targetId: user.id, detail: { reason: "deactivated" } };
  audit(tx, actorOf(origin, user), { ...entry, outcome: "failure" }, now);
  return deactivated();
}

function failedSignIn(
  tx: Tx,
  attempt: { lockName: string; user: User | undefined; origin: Origin; now: number },
): AppError {
  const { lockName, user, origin, now } = attempt;
  const locked = recordFailure(tx, lockName, now);
  audit(
    tx,
    actorOf(origin, user),
    {
      action: "auth.login",
      ...(user && { targetId: user.id }),
      outcome: "failure",
      detail: { reason: user ? "wrong_password" : "unknown_name", ...(locked && { locked }) },
    },
    now,
  );
  return new AppError("unauthenticated", "Incorrect username or password");
}
