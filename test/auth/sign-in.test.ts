import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { users } from "../../src/db/schema.ts";
import { type Accounts, openAccounts, PASSWORD } from "./setup.ts";

let accounts: Accounts;
beforeEach(() => {
  accounts = openAccounts();
});
afterEach(() => accounts.close());

const MINUTE = 60_000;

describe("registration", () => {
  test("answers 201 with the whole user object and leaves one audit row", async () => {
    const answer = await accounts.call("POST", "/api/v1/auth/register", {
      body: {
        username: "JohnDoe",
        email: "User@Example.com",
        password: "securePassword123",
        full_name: "John Doe",
      },
    });
    expect(answer.status).toBe(201);
    expect(answer.body).toEqual({
      id: expect.stringMatching(/^[0-9a-f]{24}$/),
      username: "JohnDoe",
      email: "User@Example.com",
      full_name: "John Doe",
      is_active: true,
      is_verified: false,
      avatar_url: null,
      subscription_plan: "free",
      role: "user",
      created_at: expect.stringMatching(/Z$/),
      updated_at: expect.stringMatching(/Z$/),
      last_login: null,
    });
    expect(accounts.auditRows()).toMatchObject([
      {
        action: "auth.register",
        userId: answer.body.id,
        targetId: answer.body.id,
        ip: "203.0.113.7",
        requestId: "req-1",
        outcome: "success",
      },
    ]);
  });

  const valid = { username: "alice", email: "alice@example.com", password: PASSWORD };
  const refused: [name: string, body: Record<string, unknown>, field: string, code: string][] = [
    ["no username", { ...valid, username: undefined }, "username", "required"],
    ["a username of two characters", { ...valid, username: "ab" }, "username", "invalid_format"],
    ["a username of 31 characters", { ...valid, username: "a".repeat(31) }, "username", "invalid_format"],
    ["a username that begins with a hyphen", { ...valid, username: "-alice" }, "username", "invalid_format"],
    ["a username with an @", { ...valid, username: "alice@x" }, "username", "invalid_format"],
    ["an address without a domain", { ...valid, email: "alice" }, "email", "invalid_format"],
    ["a password of seven characters", { ...valid, password: "kT9?xq1" }, "password", "min_length"],
    ["a password of 129 characters", { ...valid, password: "ab".repeat(65) }, "password", "max_length"],
    ["a very common password", { ...valid, password: "PassWord123" }, "password", "common_password"],
    [
      "the username as password",
      { ...valid, username: "alice-in-w", password: "Alice-In-W" },
      "password",
      "personal_password",
    ],
    ["the address as password", { ...valid, password: "Alice@Example.com" }, "password", "personal_password"],
    ["a full name that is a number", { ...valid, full_name: 7 }, "full_name", "invalid_type"],
  ];
  test.each(refused)("%s is 422 and makes no account", async (_name, body, field, code) => {
    const answer = await accounts.call("POST", "/api/v1/auth/register", { body });
    expect(answer.status).toBe(422);
    expect(answer.body.detail).toBe("Request validation failed");
    expect(answer.body.errors[0].field).toBe(field);
    expect(answer.body.errors[0].code).toBe(code);
    expect(accounts.db.select().from(users).all()).toEqual([]);
    expect(accounts.auditRows()).toEqual([]);
  });

  test("a body that is not JSON is 422 with the code invalid_json", async () => {
    const answer = await accounts.call("POST", "/api/v1/auth/register", { body: "{username:" });
    expect(answer.status).toBe(422);
    expect(answer.body.errors).toMatchObject([{ field: "body", code: "invalid_json" }]);
  });

  test.each([
    [{ username: "ALICE", email: "other@example.com" }, ["username"]],
    [{ username: "other", email: "ALICE@example.com" }, ["email"]],
    [{ username: "Alice", email: "alice@example.com" }, ["username", "email"]],
  ])("taken names are 409 without regard to case: %o", async (names, fields) => {
    await accounts.register("alice");
    const answer = await accounts.call("POST", "/api/v1/auth/register", {
      body: { ...names, password: PASSWORD },
    });
    expect(answer.status).toBe(409);
    expect(answer.body.errors.map((error: { field: string }) => error.field)).toEqual(fields);
    expect(accounts.db.select().from(users).all()).toHaveLength(1);
  });

  test("of two registrations of one name at once, one wins", async () => {
    const answers = await Promise.all([accounts.register("alice"), accounts.register("Alice")]);
    expect(answers.map(({ status }) => status).sort()).toEqual([201, 409]);
  });

  test("a closed server refuses with the code registration_closed", async () => {
    const closed = openAccounts({ registration: "closed" });
    const answer = await closed.register("alice");
    expect(answer.status).toBe(403);
    expect(answer.body.errors).toMatchObject([{ code: "registration_closed" }]);
    closed.close();
  });
});

describe("sign-in", () => {
  test.each(["username_or_email", "email", "username"])("accepts the name as %s", async (field) => {
    await accounts.register("alice");
    for (const name of ["alice", "ALICE@example.com"]) {
      const unused = { username_or_email: null, email: null, username: null };
      const body = { ...unused, [field]: name, password: PASSWORD };
      const answer = await accounts.call("POST", "/api/v1/auth/login", { body });
      expect(answer.status).toBe(200);
    }
  });

  test("answers tokens and the whole user, and remembers when", async () => {
    const registered = await accounts.register("alice");
    const { status, body, headers } = await accounts.signIn("alice");
    expect(status).toBe(200);
    expect(body).toEqual({
      access_token: expect.stringMatching(/^ey.+\..+\..+$/),
      refresh_token: expect.stringMatching(/^ey.+\..+\..+$/),
      token_type: "bearer",
      expires_in: 3600,
      user: { ...registered.body, last_login: expect.stringMatching(/Z$/) },
    });
    expect(headers.get("cache-control")).toBe("no-store");
    const me = await accounts.call("GET", "/api/v1/auth/me", { token: body.access_token });
    expect(me.body).toEqual(body.user);
  });

  test("a wrong password and an unknown name are answered alike", async () => {
    await accounts.register("alice");
    const wrong = await accounts.signIn("alice", "not the password");
    const unknown = await accounts.signIn("nobody", "not the password");
    expect(wrong.status).toBe(401);
    expect(wrong.headers.get("www-authenticate")).toBe("Bearer");
    expect(wrong.body.detail).toBe("Incorrect username or password");
    expect({ ...unknown.body, timestamp: "" }).toEqual({ ...wrong.body, timestamp: "" });
    expect(accounts.auditRows().slice(1)).toMatchObject([
      { action: "auth.login", outcome: "failure", username: "alice", detail: { reason: "wrong_password" } },
      { action: "auth.login", outcome: "failure", username: null, detail: { reason: "unknown_name" } },
    ]);
  });

  test("the same password in other code points is the same password", async () => {
    await accounts.register("alice", "Ångström units");
    expect((await accounts.signIn("alice", "A\u030Angstro\u0308m units")).status).toBe(200);
  });

  test("a deactivated account is told so only after its right password", async () => {
    await accounts.register("alice");
    accounts.db.update(users).set({ isActive: false }).run();
    expect((await accounts.signIn("alice", "not the password")).status).toBe(401);
    const answer = await accounts.signIn("alice");
    expect(answer.status).toBe(403);
    expect(answer.body.detail).toBe("Account is deactivated");
  });

  test("a hash of other parameters is replaced at the next sign-in", async () => {
    await accounts.register("alice");
    const old = await Bun.password.hash(PASSWORD, { algorithm: "argon2id", memoryCost: 1024, timeCost: 1 });
    accounts.db.update(users).set({ passwordHash: old }).run();
    expect((await accounts.signIn("alice")).status).toBe(200);
    const [row] = accounts.db.select().from(users).all();
    expect(accounts.passwords.isOutdated(old)).toBe(true);
    expect(accounts.passwords.isOutdated(row?.passwordHash ?? "")).toBe(false);
    expect((await accounts.signIn("alice")).status).toBe(200);
  });
});

describe("lockout", () => {
  async function fail(name: string, times: number) {
    for (let n = 0; n < times; n++) expect((await accounts.signIn(name, "wrong password")).status).toBe(401);
  }

  test.each(["alice", "nobody"])(
    "five failures lock %s for 15 minutes, whatever the password",
    async (name) => {
      await accounts.register("alice");
      await fail(name, 5);
      for (const password of [PASSWORD, "wrong password"]) {
        const answer = await accounts.signIn(name, password);
        expect(answer.status).toBe(403);
        expect(Number(answer.headers.get("retry-after"))).toBeGreaterThan(14 * 60);
      }
      accounts.advance(15 * MINUTE);
      expect((await accounts.signIn(name)).status).toBe(name === "alice" ? 200 : 401);
    },
  );

  test("the account's names share one count, and a lock by one says nothing of the other", async () => {
    await accounts.register("alice");
    await fail("Alice@example.com", 5);
    expect((await accounts.signIn("alice@example.com")).status).toBe(403);
    await fail("nobody@example.com", 5);
    const [known, unknown] = [await accounts.signIn("alice"), await accounts.signIn("nobody")];
    expect(known.status).toBe(401);
    expect({ ...known.body, timestamp: "" }).toEqual({ ...unknown.body, timestamp: "" });
    accounts.advance(15 * MINUTE);
    expect((await accounts.signIn("alice")).status).toBe(200);
  });

  test("failures under several names lock the account, and none makes that longer", async () => {
    await accounts.register("alice");
    await fail("alice", 3);
    await fail("Alice@example.com", 2);
    expect((await accounts.signIn("alice")).status).toBe(401);
    accounts.advance(14 * MINUTE);
    await fail("alice@example.com", 1);
    accounts.advance(MINUTE);
    expect((await accounts.signIn("alice")).status).toBe(200);
  });

  test("a success begins the count again", async () => {
    await accounts.register("alice");
    await fail("alice", 4);
    expect((await accounts.signIn("alice")).status).toBe(200);
    await fail("alice", 4);
    expect((await accounts.signIn("alice")).status).toBe(200);
  });

  test("another account is not locked", async () => {
    await accounts.register("alice");
    await accounts.register("bob");
    await fail("alice", 5);
    expect((await accounts.signIn("bob")).status).toBe(200);
  });

  test("guesses sent side by side get no more than five answers", async () => {
    await accounts.register("alice");
    const guesses = await Promise.all(
      Array.from({ length: 12 }, (_, n) =>
        accounts.signIn("alice", n === 11 ? PASSWORD : `wrong password ${n}`),
      ),
    );
    expect(guesses.filter(({ status }) => status === 401)).toHaveLength(5);
    expect(guesses.filter(({ status }) => status === 403)).toHaveLength(7);
  });
});
