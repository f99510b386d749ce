import { eq } from "drizzle-orm";
import { users } from "../src/db/schema.ts";
import type { Accounts } from "./auth/setup.ts";

/** Access tokens of an ordinary user and of an administrator, both new. */
export async function signInBoth(accounts: Accounts): Promise<{ user: string; admin: string }> {
  for (const name of ["ada", "root"]) await accounts.register(name);
  accounts.db.update(users).set({ role: "admin" }).where(eq(users.username, "root")).run();
  const token = async (name: string): Promise<string> => (await accounts.signIn(name)).body.access_token;
  return { user: await token("ada"), admin: await token("root") };
}
