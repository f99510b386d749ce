import { z } from "@hono/zod-openapi";
import { eq } from "drizzle-orm";
import { generateRandomString } from "oslo/crypto";
import { audit, SYSTEM_ACTOR } from "../audit/audit.ts";
import { ConfigError } from "../config/config.ts";
import { type Db, inTransaction } from "../db/open.ts";
import { users } from "../db/schema.ts";
import { AppError, notFound } from "../errors.ts";
import { validationError } from "../http/validation.ts";
import { Email, findByName, insertUser, type User, Username } from "./account.ts";
import { endActionTokens } from "./action-tokens.ts";
import { forgetFailures } from "./lockout.ts";
import { passwordFault } from "./password-policy.ts";
import type { Passwords } from "./passwords.ts";
import type { Sessions } from "./sessions.ts";

/*
 * Accounts made and mended from the machine's own command line, where whoever may read the data folder may
 * do everything anyway: nobody is asked for, and audit rows name no user.
 */

/** The command line's arguments are held to the same rules as a registration. */
const Names = z.object({ username: Username, email: Email });

interface AdministratorDeps {
  db: Db;
  now: () => number;
  passwords: Passwords;
}

export interface GivenPassword {
  user: User;
  /** What was made up where none was given: shown once, known to nobody else. */
  generatedPassword?: string;
}

/**
 * Makes the administrator `admin` on a server that has none.
 *
 * @returns null when there is one already
 * @throws ConfigError when ADMIN_PASSWORD can't be used, or another account has the username or address
 */
export async function ensureFirstAdmin(
  deps: AdministratorDeps,
  { email, password }: { email: string; password: string | undefined },
): Promise<GivenPassword | null> {
  const existing = deps.db.select({ id: users.id }).from(users).where(eq(users.role, "admin")).get();
  if (existing) return null;
  const fault = password === undefined ? undefined : passwordFault(password, { username: "admin", email });
  if (fault) {
    const reason = fault.fields[0]?.message.replace(/^Password /, "") ?? "can't be used";
    throw new ConfigError(`ADMIN_PASSWORD ${reason}. Example: ADMIN_PASSWORD=a long sentence`);
  }
  try {
    return await createAdmin(deps, { username: "admin", email, password });
  } catch (error) {
    if (!(error instanceof AppError && error.code === "conflict")) throw error;
    throw new ConfigError(
      `There is no administrator, and the first one can't be made as admin <${email}>: ${error.message}. Make one by another name with: devpocket admin create EMAIL USERNAME`,
    );
  }
}

/**
 * Makes an administrator. The address counts as verified: whoever runs the server has named it.
 *
 * @throws AppError validation for a name or password that can't be used, conflict when a name is taken
 */
export async function createAdmin(
  { db, now, passwords }: AdministratorDeps,
  given: { username: string; email: string; password: string | undefined },
): Promise<GivenPassword> {
  const names = Names.safeParse(given);
  if (!names.success) throw validationError(names.error, given);
  const { username, email } = names.data;
  const chosen = choosePassword(given.password, { username, email });
  const passwordHash = await passwords.hash(chosen.password);
  const user = inTransaction(db, (tx) => {
    const made = insertUser(
      tx,
      { username, email, fullName: null, passwordHash, isVerified: true, role: "admin" },
      now(),
    );
    const entry = { action: "user.create", targetId: made.id, detail: { role: "admin" } };
    audit(tx, SYSTEM_ACTOR, entry, now());
    return made;
  });
  return { user, ...chosen.generated };
}

/**
 * Gives an account a new password, signs it out everywhere, ends links to reset it and lifts a lock.
 *
 * @param name username or address
 * @throws AppError not_found, or validation for a weak password
 */
export async function resetPassword(
  { db, now, passwords, sessions }: AdministratorDeps & { sessions: Sessions },
  { name, password }: { name: string; password: string | undefined },
): Promise<GivenPassword> {
  const found = findByName(db, name);
  if (!found) throw notFound("User");
  const chosen = choosePassword(password, found);
  const passwordHash = await passwords.hash(chosen.password);
  const user = inTransaction(db, (tx) => {
    sessions.endAll(tx, found.id);
    endActionTokens(tx, found.id, "reset_password", now());
    forgetFailures(tx, found);
    audit(tx, SYSTEM_ACTOR, { action: "auth.password_reset", targetId: found.id }, now());
    return tx
      .update(users)
      .set({ passwordHash, updatedAt: now() })
      .where(eq(users.id, found.id))
      .returning()
      .get();
  });
  return { user, ...chosen.generated };
}

function choosePassword(
  given: string | undefined,
  names: { username: string; email: string },
): { password: string; generated: { generatedPassword?: string } } {
  if (given === undefined) {
    const password = generatePassword();
    return { password, generated: { generatedPassword: password } };
  }
  const fault: AppError | undefined = passwordFault(given, names);
  if (fault) throw fault;
  return { password: given, generated: {} };
}

/** Twenty letters and digits that are not easily taken for each other: 113 bits. */
function generatePassword(): string {
  const alphabet = "abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789";
  return Array.from({ length: 4 }, () => generateRandomString(5, alphabet)).join("-");
}
