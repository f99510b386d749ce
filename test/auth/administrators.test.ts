import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { createAdmin, ensureFirstAdmin, resetPassword } from "../../src/auth/administrators.ts";
import { ConfigError } from "../../src/config/config.ts";
import { users } from "../../src/db/schema.ts";
import { type Accounts, openAccounts, PASSWORD } from "./setup.ts";

let accounts: Accounts;
beforeEach(() => {
  accounts = openAccounts();
});
afterEach(() => accounts.close());

const email = "root@example.com";

describe("the first administrator", () => {
  test("gets the configured password, which is not shown", async () => {
    const made = await ensureFirstAdmin(accounts, { email, password: PASSWORD });
    expect(made).not.toHaveProperty("generatedPassword");
    const login = await accounts.signIn("admin");
    expect(login.body.user).toMatchObject({
      role: "admin",
      email,
      is_verified: true,
      subscription_plan: "free",
    });
  });

  test("gets a made-up password that signs in", async () => {
    const made = await ensureFirstAdmin(accounts, { email, password: undefined });
    expect(made?.generatedPassword).toMatch(/^[a-zA-Z2-9]{5}(-[a-zA-Z2-9]{5}){3}$/);
    expect((await accounts.signIn("admin", made?.generatedPassword)).status).toBe(200);
  });

  test("is made once", async () => {
    await ensureFirstAdmin(accounts, { email, password: PASSWORD });
    expect(await ensureFirstAdmin(accounts, { email, password: "another password" })).toBeNull();
    expect(accounts.db.select().from(users).all()).toHaveLength(1);
    expect((await accounts.signIn("admin")).status).toBe(200);
  });

  test.each([
    ["username", { username: "Admin", email: "someone@example.com" }],
    ["address", { username: "someone", email: "Root@example.com" }],
  ])("that can't be made since a user has its %s: the way out is named", async (_what, names) => {
    await accounts.call("POST", "/api/v1/auth/register", { body: { ...names, password: PASSWORD } });
    const attempt = ensureFirstAdmin(accounts, { email, password: PASSWORD });
    expect(attempt).rejects.toThrow(/already registered.*devpocket admin create EMAIL USERNAME$/);
    expect(attempt).rejects.toBeInstanceOf(ConfigError);
    await attempt.catch(() => {});
  });

  test("does not get a password that everybody tries", async () => {
    const attempt = ensureFirstAdmin(accounts, { email, password: "password123" });
    expect(attempt).rejects.toThrow(
      "ADMIN_PASSWORD is one of the most common ones. Example: ADMIN_PASSWORD=a long sentence",
    );
    await attempt.catch(() => {});
    expect(accounts.db.select().from(users).all()).toEqual([]);
  });
});

describe("admin create", () => {
  test("makes another one, and audits it", async () => {
    await createAdmin(accounts, { username: "ops", email, password: PASSWORD });
    expect((await accounts.signIn("ops")).body.user.role).toBe("admin");
    expect(accounts.auditRows()[0]).toMatchObject({
      action: "user.create",
      userId: null,
      detail: { role: "admin" },
    });
  });

  test.each([
    [{ username: "no spaces", email }, "username"],
    [{ username: "ops", email: "nowhere" }, "email"],
  ])("holds %o to the rules of a registration", async (names, field) => {
    const attempt = createAdmin(accounts, { ...names, password: PASSWORD });
    expect(attempt).rejects.toMatchObject({ code: "validation", fields: [{ field }] });
    await attempt.catch(() => {});
    expect(accounts.db.select().from(users).all()).toEqual([]);
  });

  test("refuses a taken name", async () => {
    await accounts.register("ops");
    const attempt = createAdmin(accounts, { username: "OPS", email, password: PASSWORD });
    expect(attempt).rejects.toMatchObject({ code: "conflict", fields: [{ field: "username" }] });
    await attempt.catch(() => {});
    expect(accounts.db.select({ role: users.role }).from(users).all()).toEqual([{ role: "user" }]);
  });
});

describe("admin reset-password", () => {
  test("signs out everywhere, lifts the lock and sets the password", async () => {
    await accounts.register("alice");
    const login = await accounts.signIn("alice");
    for (let n = 0; n < 5; n++) await accounts.signIn("alice", "wrong password");
    const { generatedPassword } = await resetPassword(accounts, {
      name: "alice@example.com",
      password: undefined,
    });
    expect((await accounts.call("GET", "/api/v1/auth/me", { token: login.body.access_token })).status).toBe(
      401,
    );
    expect((await accounts.signIn("alice")).status).toBe(401);
    expect((await accounts.signIn("alice", generatedPassword)).status).toBe(200);
    expect(accounts.ended).toHaveLength(1);
  });

  test("knows nobody of that name", async () => {
    expect(resetPassword(accounts, { name: "nobody", password: undefined })).rejects.toMatchObject({
      code: "not_found",
    });
  });
});
