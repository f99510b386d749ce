import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { eq } from "drizzle-orm";
import { users } from "../../src/db/schema.ts";
import { type Running, serve } from "../http/server.ts";
import { until } from "../until.ts";
import { type Accounts, openAccounts } from "./setup.ts";

/* A client that holds back its last bytes until its rights are taken away. */

let accounts: Accounts;
let server: Running;
let mallory: { id: string; token: string };
let root: string;
let asked = 0;
beforeEach(async () => {
  accounts = openAccounts();
  root = await accounts.admin();
  mallory = { id: "", token: await accounts.admin("mallory") };
  mallory.id = row()?.id ?? "";
  asked = 0;
  server = serve({
    routers: accounts.routers,
    identify(c) {
      asked += 1;
      return accounts.guard.identify(c);
    },
    config: { rateLimits: { generalPerMinute: 1000, authPerMinute: 0 } },
  });
});
afterEach(async () => {
  await server[Symbol.asyncDispose]();
  accounts.close();
});

const row = () => accounts.db.select().from(users).where(eq(users.username, "mallory")).get();

/** Sends a body of which the second half follows when `meanwhile` has happened. */
async function put(path: string, body: unknown, meanwhile: () => Promise<unknown>): Promise<number> {
  const text = JSON.stringify(body);
  const { status } = await fetch(server.url + path, {
    method: "PUT",
    headers: { "Content-Type": "application/json", Authorization: `Bearer ${mallory.token}` },
    body: (async function* () {
      yield new TextEncoder().encode(text.slice(0, 5));
      await until(() => asked === 1);
      await meanwhile();
      yield new TextEncoder().encode(text.slice(5));
    })(),
  });
  return status;
}

const administer = (change: unknown) =>
  accounts.call("PUT", `/api/v1/users/${mallory.id}`, { body: change, token: root });

describe("a body that comes", () => {
  test.each([
    ["after its sender was demoted", { role: "user" }, 403, { role: "user", isActive: true }],
    ["after its sender was deactivated", { is_active: false }, 401, { role: "admin", isActive: false }],
    ["after both", { role: "user", is_active: false }, 401, { role: "user", isActive: false }],
  ])("%s changes nothing", async (_when, change, status, kept) => {
    const back = { role: "admin", is_active: true };
    expect(await put(`/api/v1/users/${mallory.id}`, back, () => administer(change))).toBe(status);
    expect(row()).toMatchObject(kept);
  });

  test("after its session was signed out changes nothing", async () => {
    const signOut = () => accounts.call("POST", "/api/v1/auth/logout", { token: mallory.token });
    expect(await put("/api/v1/users/me", { email: "thief@example.com" }, signOut)).toBe(401);
    expect(row()?.email).toBe("mallory@example.com");
  });

  test("late, from someone who still may, counts", async () => {
    expect(await put("/api/v1/users/me", { full_name: "M" }, async () => {})).toBe(200);
    expect(row()?.fullName).toBe("M");
  });
});
