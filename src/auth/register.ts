import { audit } from "../audit/audit.ts";
import { type DbOrTx, inTransaction } from "../db/open.ts";
import { AppError, reasonOf } from "../errors.ts";
import { actorOf } from "../http/audit-actor.ts";
import type { Origin } from "../http/context.ts";
import { insertUser, takenNamesFault, type User } from "./account.ts";
import { passwordFault } from "./password-policy.ts";
import type { Passwords } from "./passwords.ts";
import { sendVerification, type VerificationDeps } from "./verification.ts";

interface RegisterDeps extends VerificationDeps {
  passwords: Passwords;
  registration: "open" | "closed";
}

export interface Registration {
  username: string;
  email: string;
  password: string;
  fullName: string | null;
}

/** @throws AppError forbidden when registration is closed, validation for a weak password, conflict */
export async function register(
  deps: RegisterDeps,
  { username, email, password, fullName }: Registration,
  origin: Origin,
): Promise<User> {
  const { db, now, passwords } = deps;
  const refused = (tx: DbOrTx, error: AppError) => {
    const detail = { reason: reasonOf(error), fields: error.fields.map(({ field }) => field) };
    const entry = { action: "auth.register", outcome: "failure" as const, detail };
    audit(tx, actorOf(origin, undefined), entry, now());
    return error;
  };
  const closed = closedRegistration(deps.registration);
  if (closed) throw refused(db, closed);
  const fault = passwordFault(password, { username, email });
  if (fault) throw fault;
  // Before the costly hash; the transaction looks again.
  const conflict = takenNamesFault(db, { username, email });
  if (conflict) throw refused(db, conflict);
  const passwordHash = await passwords.hash(password);

  const outcome = inTransaction(db, (tx): User | AppError => {
    const at = now();
    const taken = takenNamesFault(tx, { username, email });
    if (taken) return refused(tx, taken);
    const user = insertUser(tx, { username, email, fullName, passwordHash }, at);
    sendVerification(tx, deps, user);
    audit(tx, actorOf(origin, user), { action: "auth.register", targetId: user.id }, at);
    return user;
  });
  // Thrown only after the commit: the trace of the refusal must stand.
  if (outcome instanceof AppError) throw outcome;
  return outcome;
}

/** The refusal where registration is closed. */
export function closedRegistration(registration: "open" | "closed"): AppError | undefined {
  if (registration === "open") return undefined;
  const message = "Registration is closed on this server";
  return new AppError("forbidden", message, {
    fields: [{ field: "username", message, code: "registration_closed" }],
  });
}
