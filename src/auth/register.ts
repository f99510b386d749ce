import { audit } from "../audit/audit.ts";
import { inTransaction } from "../db/open.ts";
import { AppError } from "../errors.ts";
import { actorOf } from "../http/audit-actor.ts";
import type { Origin } from "../http/context.ts";
import { insertUser, requireFreeNames, type User } from "./account.ts";
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
  requireOpenRegistration(deps.registration);
  const fault = passwordFault(password, { username, email });
  if (fault) throw fault;
  // Before the costly hash; the transaction looks again.
  requireFreeNames(db, { username, email });
  const passwordHash = await passwords.hash(password);

  return inTransaction(db, (tx) => {
    const at = now();
    const user = insertUser(tx, { username, email, fullName, passwordHash }, at);
    sendVerification(tx, deps, user);
    audit(tx, actorOf(origin, user), { action: "auth.register", targetId: user.id }, at);
    return user;
  });
}

export function requireOpenRegistration(registration: "open" | "closed"): void {
  if (registration === "open") return;
  const message = "Registration is closed on this server";
  throw new AppError("forbidden", message, {
    fields: [{ field: "username", message, code: "registration_closed" }],
  });
}
