import { z } from "@hono/zod-openapi";
import { and, eq, ne, or } from "drizzle-orm";
import type { DbOrTx, Tx } from "../db/open.ts";
import { PLANS, ROLES, type Role, users } from "../db/schema.ts";
import { AppError, type FieldError } from "../errors.ts";
import { ErrorBody, RetryAfterHeaders } from "../http/errors.ts";
import { json } from "../http/router.ts";
import { newId } from "../lib/ids.ts";
import { invalidToken } from "./tokens.ts";

export type User = typeof users.$inferSelect;

export const UserBody = z
  .object({
    id: z.string().openapi({ example: "507f1f77bcf86cd799439011" }),
    username: z.string().openapi({ example: "johndoe" }),
    email: z.string().openapi({ example: "user@example.com" }),
    full_name: z.string().nullable().openapi({ example: "John Doe" }),
    is_active: z.boolean(),
    is_verified: z.boolean(),
    avatar_url: z.string().nullable().openapi({ example: null }),
    subscription_plan: z.enum(PLANS),
    role: z.enum(ROLES),
    created_at: z.iso.datetime().openapi({ example: "2024-01-01T00:00:00Z" }),
    updated_at: z.iso.datetime().openapi({ example: "2024-01-01T00:00:00Z" }),
    last_login: z.iso.datetime().nullable().openapi({ example: "2024-01-01T12:00:00Z" }),
  })
  .openapi("User");

/** Documents the answers of routes that hash passwords. */
export const busy = {
  503: { ...json(ErrorBody, "Too many passwords are being checked"), headers: RetryAfterHeaders },
};

export function userBody(user: User): z.infer<typeof UserBody> {
  return {
    id: user.id,
    username: user.username,
    email: user.email,
    full_name: user.fullName,
    is_active: user.isActive,
    is_verified: user.isVerified,
    avatar_url: user.avatarUrl,
    subscription_plan: user.plan,
    role: user.role,
    created_at: new Date(user.createdAt).toISOString(),
    updated_at: new Date(user.updatedAt).toISOString(),
    last_login: user.lastLogin === null ? null : new Date(user.lastLogin).toISOString(),
  };
}

export const Username = z
  .string()
  .regex(
    /^[A-Za-z0-9][A-Za-z0-9_-]{2,29}$/,
    "Username must be 3 to 30 letters, digits, hyphens or underscores, beginning with a letter or digit",
  )
  .openapi({ example: "johndoe" });

export const Email = z
  .string()
  .trim()
  .max(254)
  .pipe(z.email("Invalid email format"))
  .openapi({ type: "string", format: "email", example: "user@example.com" });

/** A password that is to be set. Its length is the policy's matter, which counts characters, not UTF-16 units. */
export const NewPassword = z
  .string()
  .max(1024)
  .openapi({ format: "password", minLength: 8, maxLength: 128, example: "securePassword123" });

export const FullName = z
  .string()
  .trim()
  .max(200)
  .refine((name) => !/\p{Cc}/u.test(name), "Control characters are not allowed")
  .openapi({ example: "John Doe" });

/** Names and addresses are the same whatever their case. */
export function nameKey(name: string): string {
  return name.normalize("NFC").toLowerCase();
}

/** The account of whoever is signed in. @throws AppError unauthenticated when it has just gone */
export function ownAccount(db: DbOrTx, userId: string): User {
  const user = db.select().from(users).where(eq(users.id, userId)).get();
  if (!user) throw invalidToken();
  return user;
}

/** The account of this username or address. */
export function findByName(db: DbOrTx, name: string): User | undefined {
  const key = nameKey(name);
  return db
    .select()
    .from(users)
    .where(or(eq(users.usernameKey, key), eq(users.emailKey, key)))
    .get();
}

/** Which of the names another account has: one entry for each. */
export function takenNames(
  db: DbOrTx,
  { username, email }: { username?: string; email?: string },
  ownId = "",
): FieldError[] {
  const taken = (field: string, column: typeof users.usernameKey | typeof users.emailKey, value?: string) =>
    value !== undefined &&
    db
      .select({ id: users.id })
      .from(users)
      .where(and(eq(column, nameKey(value)), ne(users.id, ownId)))
      .get()
      ? [{ field, message: `${field} is already in use`, code: "already_exists" }]
      : [];
  return [...taken("username", users.usernameKey, username), ...taken("email", users.emailKey, email)];
}

/** The refusal of names that another account has: conflict, naming the fields. */
export function takenNamesFault(
  db: DbOrTx,
  names: { username: string; email: string },
): AppError | undefined {
  const fields = takenNames(db, names);
  const [first, second] = fields;
  if (!first) return undefined;
  const what = second ? "Username and email" : first.field === "email" ? "Email" : "Username";
  return new AppError("conflict", `${what} already registered`, { fields });
}

export interface NewUser {
  username: string;
  email: string;
  fullName: string | null;
  passwordHash: string | null;
  googleSub?: string;
  googleEmailKey?: string;
  avatarUrl?: string | null;
  isVerified?: boolean;
  role?: Role;
}

/** @throws AppError conflict when a name is taken */
export function insertUser(tx: Tx, user: NewUser, now: number): User {
  const taken = takenNamesFault(tx, user);
  if (taken) throw taken;
  return tx
    .insert(users)
    .values({
      ...user,
      id: newId(now),
      usernameKey: nameKey(user.username),
      emailKey: nameKey(user.email),
      createdAt: now,
      updatedAt: now,
    })
    .returning()
    .get();
}
