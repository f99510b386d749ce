import { eq } from "drizzle-orm";
import { alphabet, generateRandomString } from "oslo/crypto";
import { type AuditActor, audit } from "../audit/audit.ts";
import { type Db, type DbOrTx, inTransaction, type Tx } from "../db/open.ts";
import { users } from "../db/schema.ts";
import { AppError, reasonOf } from "../errors.ts";
import { actorOf } from "../http/audit-actor.ts";
import type { Origin } from "../http/context.ts";
import { insertUser, nameKey, takenNames, type User } from "./account.ts";
import type { GoogleIdentity } from "./google.ts";
import { closedRegistration } from "./register.ts";
import type { Sessions } from "./sessions.ts";
import { deactivated, openSession, refusedSignIn, type SignedIn } from "./sign-in.ts";

interface GoogleAccountsDeps {
  db: Db;
  now: () => number;
  sessions: Sessions;
  registration: "open" | "closed";
}

/**
 * Signs in who Google says it is: the account of that Google id, else the local one of the same verified
 * address, which is linked, else a new one.
 *
 * @param identify asks Google
 * @throws AppError what `identify` does; conflict when a local account has the address without having proven
 * it; forbidden for a deactivated account, or a new one where registration is closed
 */
export async function signInWithGoogle(
  deps: GoogleAccountsDeps,
  identify: () => Promise<GoogleIdentity>,
  origin: Origin,
): Promise<SignedIn> {
  const { db, now } = deps;
  const refused = (tx: DbOrTx, error: AppError, reason: string, user?: User) =>
    refusedSignIn(tx, { user, error, detail: { method: "google", reason }, origin, now: now() });

  const identity = await identify().catch((error: unknown) => {
    const isRefusal = error instanceof AppError && error.code === "invalid";
    throw isRefusal ? refused(db, error, "invalid_token") : error;
  });
  const outcome = inTransaction(db, (tx) => {
    const user = accountOf(tx, deps, { identity, origin });
    if (user instanceof AppError) return refused(tx, user, reasonOf(user));
    if (!user.isActive) return refused(tx, deactivated(), "deactivated", user);
    return openSession(tx, deps, { user, origin, method: "google" });
  });
  if (outcome instanceof AppError) throw outcome;
  return outcome;
}

interface Arrival {
  identity: GoogleIdentity;
  origin: Origin;
}

/** The account, or why there is none for them. */
function accountOf(tx: Tx, deps: GoogleAccountsDeps, { identity, origin }: Arrival): User | AppError {
  const linked = tx.select().from(users).where(eq(users.googleSub, identity.sub)).get();
  if (linked) return linked;
  const local = tx
    .select()
    .from(users)
    .where(eq(users.emailKey, nameKey(identity.email)))
    .get();
  return local ? link(tx, local, { identity, origin }, deps.now()) : create(tx, deps, { identity, origin });
}

/** Whoever registered somebody else's address must not get that person's sign-ins (pre-hijacking). */
function link(tx: Tx, local: User, { identity, origin }: Arrival, now: number): User | AppError {
  if (!local.isVerified || local.googleSub !== null) {
    const message = "An account with this email exists and can't be linked to this Google account";
    return new AppError("conflict", message, {
      fields: [{ field: "email", message, code: "already_exists" }],
    });
  }
  audit(tx, actorOf(origin, local), { action: "auth.google_link", targetId: local.id }, now);
  return tx
    .update(users)
    .set({ ...linkTo(identity), updatedAt: now })
    .where(eq(users.id, local.id))
    .returning()
    .get();
}

function create(
  tx: Tx,
  { registration, now }: GoogleAccountsDeps,
  { identity, origin }: Arrival,
): User | AppError {
  const closed = closedRegistration(registration);
  if (closed) return closed;
  const { email, name, picture } = identity;
  const user = insertUser(
    tx,
    {
      username: freeUsername(tx, email),
      email,
      fullName: name,
      passwordHash: null,
      ...linkTo(identity),
      avatarUrl: picture,
      isVerified: true,
    },
    now(),
  );
  const entry = { action: "auth.register", targetId: user.id, detail: { method: "google" } };
  audit(tx, actorOf(origin, user), entry, now());
  return user;
}

function linkTo({ sub, email }: GoogleIdentity) {
  return { googleSub: sub, googleEmailKey: nameKey(email) };
}

/**
 * Takes the sign-in with Google from an account whose address Google never vouched for: who proves that
 * address may be another than who linked it, and would share the account with them for ever.
 */
export function unlinkOtherGoogle(tx: Tx, user: User, actor: AuditActor, now: number): void {
  if (user.googleSub === null || user.googleEmailKey === user.emailKey) return;
  tx.update(users).set({ googleSub: null, googleEmailKey: null }).where(eq(users.id, user.id)).run();
  audit(tx, actor, { action: "auth.google_unlink", targetId: user.id }, now);
}

/** A username made of the address's local part, with something random behind it while it is taken. */
function freeUsername(db: DbOrTx, email: string): string {
  const [mailbox = ""] = email.split("@");
  const cleaned = mailbox
    .replace(/[^A-Za-z0-9_-]+/g, "-")
    .replace(/^[^A-Za-z0-9]+/, "")
    .slice(0, 20);
  const base = cleaned.length >= 3 ? cleaned : `user-${cleaned}`.replace(/-$/, "");
  for (let username = base; ; username = `${base}-${generateRandomString(6, alphabet("a-z", "0-9"))}`) {
    if (takenNames(db, { username }).length === 0) return username;
  }
}
