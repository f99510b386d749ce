import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { eq } from "drizzle-orm";
import { resetPassword } from "../../src/auth/administrators.ts";
import { actionTokens, users } from "../../src/db/schema.ts";
import { tidy } from "../../src/users/housekeeping.ts";
import { type Accounts, type Answer, openAccounts, PASSWORD } from "./setup.ts";

let accounts: Accounts;
let access: string;
beforeEach(async () => {
  accounts = openAccounts();
  await accounts.register("alice");
  access = (await accounts.signIn("alice")).body.access_token;
});
afterEach(() => accounts.close());

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const ALICE = "alice@example.com";

const isVerified = () =>
  accounts.db.select().from(users).where(eq(users.usernameKey, "alice")).get()?.isVerified;
const newestMail = (to = ALICE) => accounts.mailTo(to)[0]?.textBody ?? "";
const linkToken = () => /token=([\w-]+)/.exec(newestMail())?.[1] ?? "";
const code = () => /\b(\d{6})\b/.exec(newestMail())?.[1] ?? "";
const wrongCode = () => String((Number(code()) + 1) % 1_000_000).padStart(6, "0");
const verify = (body?: unknown, token?: string) =>
  accounts.call("POST", "/api/v1/auth/verify-email", { body, ...(token !== undefined && { token }) });

describe("verifying an address", () => {
  test("by the token of the link, once", async () => {
    expect(newestMail()).toContain(`https://devpocket.example.org/verify-email?token=${linkToken()}`);
    const token = linkToken();
    const answer = await verify({ token });
    expect(answer.status).toBe(200);
    expect(answer.body).toEqual({ message: "Email verified successfully" });
    expect(isVerified()).toBe(true);
    expect((await verify({ token })).status).toBe(400);
  });

  test("by the token of the link, whatever has become of an access token that comes along", async () => {
    expect((await verify({ code: code() }, "stale")).status).toBe(401);
    expect((await verify({ token: linkToken() }, "stale")).status).toBe(200);
  });

  test("by the code, with its owner's access token", async () => {
    expect((await verify({ code: code() }, access)).body).toEqual({ message: "Email verified successfully" });
    expect(isVerified()).toBe(true);
  });

  test("not by the code alone, nor with another's access token", async () => {
    await accounts.register("bob");
    const bob = (await accounts.signIn("bob")).body.access_token;
    expect((await verify({ code: code() })).status).toBe(401);
    expect((await verify({ code: code() }, bob)).status).toBe(400);
    expect(isVerified()).toBe(false);
  });

  test.each<[string, () => Promise<Answer>]>([
    ["link", () => verify({ token: linkToken() })],
    ["code", () => verify({ code: code() }, access)],
  ])("by the %s that was sent before the address's case was changed", async (_by, verifies) => {
    const body = { email: "Alice@Example.com" };
    expect((await accounts.call("PUT", "/api/v1/users/me", { token: access, body })).status).toBe(200);
    expect((await verifies()).status).toBe(200);
    expect(isVerified()).toBe(true);
  });

  test("five wrong codes end the code, not the link", async () => {
    const right = code();
    const token = linkToken();
    for (let n = 0; n < 5; n++) expect((await verify({ code: wrongCode() }, access)).status).toBe(400);
    expect((await verify({ code: right }, access)).status).toBe(400);
    expect(isVerified()).toBe(false);
    expect((await verify({ token })).status).toBe(200);
  });

  test("fifteen wrong codes in a day end all codes, however many are sent, not the link", async () => {
    for (let round = 0; round < 3; round++) {
      for (let n = 0; n < 5; n++) await verify({ code: wrongCode() }, access);
      accounts.advance(MINUTE);
      expect((await verify(undefined, access)).status).toBe(200);
    }
    expect((await verify({ code: code() }, access)).status).toBe(400);
    await tidy({ ...accounts, auditRetentionMs: null });
    expect((await verify({ code: code() }, access)).status).toBe(400);
    const token = linkToken();
    accounts.advance(24 * HOUR - 1000);
    expect((await verify({ token })).status).toBe(200);
  });

  test("a day after wrong codes others count again", async () => {
    for (let n = 0; n < 5; n++) await verify({ code: wrongCode() }, access);
    accounts.advance(24 * HOUR);
    access = (await accounts.signIn("alice")).body.access_token;
    await verify(undefined, access);
    expect((await verify({ code: code() }, access)).status).toBe(200);
  });

  test.each([
    ["unknown", "nonsense"],
    ["very long", "x".repeat(4000)],
  ])("an %s token is 400", async (_name, token) => {
    expect((await verify({ token })).status).toBe(400);
    expect(isVerified()).toBe(false);
  });

  test("nothing is verified after 24 hours", async () => {
    accounts.advance(24 * HOUR);
    const later = (await accounts.signIn("alice")).body.access_token;
    expect((await verify({ token: linkToken() })).status).toBe(400);
    expect((await verify({ code: code() }, later)).status).toBe(400);
    expect(isVerified()).toBe(false);
  });

  test("neither token nor access token is 422", async () => {
    const required = [{ field: "token", message: "This field is required", code: "required" }];
    for (const answer of [await verify({}), await verify()]) {
      expect(answer).toMatchObject({ status: 422, body: { errors: required } });
    }
  });

  test("the database holds neither token nor code", async () => {
    const row = accounts.db.select().from(actionTokens).get();
    expect(JSON.stringify(row)).not.toContain(linkToken());
    expect(JSON.stringify(row)).not.toContain(code());
  });
});

describe("sending the message again", () => {
  const resend = (token?: string) =>
    accounts.call("POST", "/api/v1/auth/resend-verification", token === undefined ? {} : { token });

  test("ends the earlier link", async () => {
    const before = linkToken();
    expect((await resend(access)).body).toEqual({ message: "Verification email sent" });
    expect(accounts.mailTo(ALICE)).toHaveLength(2);
    expect((await verify({ token: before })).status).toBe(400);
    expect((await verify({ token: linkToken() })).status).toBe(200);
  });

  test("is what verify-email does with an access token and no body, whatever the content type", async () => {
    expect((await verify(undefined, access)).body).toEqual({ message: "Verification email sent" });
    const headers = { "content-type": "application/json" };
    accounts.advance(MINUTE);
    const empty = await accounts.call("POST", "/api/v1/auth/verify-email", { token: access, headers });
    expect(empty.body).toEqual({ message: "Verification email sent" });
    accounts.advance(MINUTE);
    expect((await verify({}, access)).body).toEqual({ message: "Verification email sent" });
    expect(accounts.mailTo(ALICE)).toHaveLength(4);
  });

  test("is five times an hour, whichever address it goes to", async () => {
    const token = linkToken();
    for (let n = 0; n < 5; n++) expect((await resend(access)).status).toBe(200);
    const refused = await resend(access);
    expect(refused.status).toBe(429);
    expect(refused.body.retry_after).toBeWithin(59 * 60, 60 * 60 + 1);
    expect((await verify({ token })).status).toBe(400);
    expect((await verify({ token: linkToken() })).status).toBe(200);
    const move = await accounts.call("PUT", "/api/v1/users/me", {
      token: access,
      body: { email: "victim@example.com" },
    });
    expect(move.status).toBe(429);
    expect(accounts.mailTo("victim@example.com")).toEqual([]);
  });

  test("is 400 with already_verified for a verified address, and sends nothing", async () => {
    await verify({ token: linkToken() });
    const answer = await resend(access);
    expect(answer.status).toBe(400);
    expect(answer.body.errors).toMatchObject([{ field: "email", code: "already_verified" }]);
    expect(accounts.mailTo(ALICE)).toHaveLength(1);
  });

  test("needs an access token that is good", async () => {
    expect((await resend()).status).toBe(401);
    expect((await verify(undefined, "forged")).status).toBe(401);
    expect(accounts.mailTo(ALICE)).toHaveLength(1);
  });
});

describe("a forgotten password", () => {
  const forgot = (email: string) =>
    accounts.call("POST", "/api/v1/auth/forgot-password", { body: { email } });
  const reset = (token: string, new_password: string) =>
    accounts.call("POST", "/api/v1/auth/reset-password", { body: { token, new_password } });
  const NEW = "another fine sentence";

  test("can be set anew by the link, once; everyone is signed out and the owner is told", async () => {
    await forgot("Alice@Example.com");
    const token = linkToken();
    expect((await reset(token, NEW)).status).toBe(200);
    expect((await accounts.call("GET", "/api/v1/auth/me", { token: access })).status).toBe(401);
    expect((await accounts.signIn("alice")).status).toBe(401);
    expect((await accounts.signIn("alice", NEW)).status).toBe(200);
    expect(isVerified()).toBe(true);
    expect(accounts.ended).toHaveLength(1);
    expect(accounts.mailTo(ALICE)[0]?.subject).toBe("Your password was changed");
    expect((await reset(token, "yet another sentence")).status).toBe(400);
  });

  test("can be set anew by a link that was sent before the address's case was changed", async () => {
    await forgot(ALICE);
    const token = linkToken();
    const body = { email: "Alice@Example.com" };
    expect((await accounts.call("PUT", "/api/v1/users/me", { token: access, body })).status).toBe(200);
    expect((await reset(token, NEW)).status).toBe(200);
  });

  test("asked for by a stranger takes no link from its owner, and fills no mailbox", async () => {
    await forgot(ALICE);
    const first = linkToken();
    for (let n = 0; n < 10; n++) {
      expect((await forgot(ALICE)).status).toBe(200);
      accounts.advance(MINUTE);
    }
    expect(accounts.mailTo(ALICE)).toHaveLength(1 + 5);
    const last = linkToken();
    expect((await reset(first, NEW)).status).toBe(200);
    expect((await reset(last, NEW)).status).toBe(400);
  });

  test("is answered alike for an unknown address, which gets no message", async () => {
    const known = await forgot(ALICE);
    const unknown = await forgot("nobody@example.com");
    expect([known.status, unknown.status]).toEqual([200, 200]);
    expect(unknown.body).toEqual(known.body);
    expect(accounts.mailTo("nobody@example.com")).toEqual([]);
  });

  test("sends nothing to a deactivated account", async () => {
    accounts.db.update(users).set({ isActive: false }).run();
    expect((await forgot(ALICE)).status).toBe(200);
    expect(accounts.mailTo(ALICE)).toHaveLength(1);
  });

  test("a weak new password is 422 and leaves the link usable", async () => {
    await forgot(ALICE);
    const token = linkToken();
    const weak = await reset(token, "password123");
    expect(weak.status).toBe(422);
    expect(weak.body.errors).toMatchObject([{ field: "new_password", code: "common_password" }]);
    expect((await accounts.signIn("alice")).status).toBe(200);
    expect((await reset(token, NEW)).status).toBe(200);
  });

  test("the link ends after an hour, and is no verification link", async () => {
    await forgot(ALICE);
    const token = linkToken();
    expect((await verify({ token })).status).toBe(400);
    accounts.advance(HOUR);
    expect((await reset(token, NEW)).status).toBe(400);
    expect((await accounts.signIn("alice", PASSWORD)).status).toBe(200);
  });

  test.each<[string, () => Promise<unknown>]>([
    [
      "by its owner",
      () =>
        accounts.call("PUT", "/api/v1/users/me/password", {
          token: access,
          body: { current_password: PASSWORD, new_password: NEW },
        }),
    ],
    ["from the command line", () => resetPassword(accounts, { name: "alice", password: NEW })],
  ])("the link ends with a change of the password %s", async (_who, change) => {
    await forgot(ALICE);
    const token = linkToken();
    await change();
    expect((await reset(token, "yet another sentence")).status).toBe(400);
    expect((await accounts.signIn("alice", NEW)).status).toBe(200);
  });

  test("of two requests with one link, one counts", async () => {
    await forgot(ALICE);
    const token = linkToken();
    const answers = await Promise.all([reset(token, NEW), reset(token, "yet another sentence")]);
    expect(answers.map(({ status }) => status).sort()).toEqual([200, 400]);
  });

  test("a reset lifts the lock of the account", async () => {
    for (let n = 0; n < 5; n++) await accounts.signIn("alice", "wrong password");
    await forgot(ALICE);
    await reset(linkToken(), NEW);
    expect((await accounts.signIn("alice", NEW)).status).toBe(200);
  });
});

describe("the pages", () => {
  const form = (path: string, fields: Record<string, string>) =>
    accounts.call("POST", path, {
      body: new URLSearchParams(fields).toString(),
      headers: { "content-type": "application/x-www-form-urlencoded" },
    });

  test("opening the link changes nothing; its button verifies", async () => {
    const token = linkToken();
    const page = await accounts.call("GET", `/verify-email?token=${token}`);
    expect(page.status).toBe(200);
    expect(page.headers.get("content-type")).toContain("text/html");
    expect(page.text).toContain(`value="${token}"`);
    expect(isVerified()).toBe(false);
    const pressed = await form("/verify-email", { token });
    expect(pressed.status).toBe(200);
    expect(pressed.text).toContain("Email verified successfully");
    expect(isVerified()).toBe(true);
    expect((await form("/verify-email", { token })).status).toBe(400);
  });

  test("run no scripts, load nothing and repeat a hostile token only escaped", async () => {
    for (const path of ["/verify-email", "/reset-password"]) {
      const page = await accounts.call(
        "GET",
        `${path}?token=${encodeURIComponent('"><script>alert(1)</script>')}`,
      );
      expect(page.text).not.toContain("<script");
      expect(page.headers.get("content-security-policy")).toContain("default-src 'none'");
      expect(page.headers.get("content-security-policy")).not.toContain("unsafe");
      expect(page.headers.get("cache-control")).toBe("no-store");
      expect(page.headers.get("referrer-policy")).toBe("no-referrer");
    }
  });

  test("a new password is set by the form, which comes back while the password is weak", async () => {
    await accounts.call("POST", "/api/v1/auth/forgot-password", { body: { email: ALICE } });
    const token = linkToken();
    const weak = await form("/reset-password", { token, new_password: "password123" });
    expect(weak.status).toBe(422);
    expect(weak.text).toContain("most common");
    expect(weak.text).toContain(`value="${token}"`);
    expect((await form("/reset-password", { token, new_password: "another fine sentence" })).status).toBe(
      200,
    );
    expect((await accounts.signIn("alice", "another fine sentence")).status).toBe(200);
    expect((await form("/reset-password", { token, new_password: "another fine sentence" })).status).toBe(
      400,
    );
    expect((await form("/reset-password", {})).status).toBe(400);
  });
});

test("every step is audited, and no row holds a token, a code or a password", async () => {
  const secrets = [linkToken(), code(), PASSWORD, access];
  await verify({ code: wrongCode() }, access);
  await verify({ token: linkToken() });
  await accounts.call("POST", "/api/v1/auth/forgot-password", { body: { email: ALICE } });
  secrets.push(linkToken());
  await accounts.call("POST", "/api/v1/auth/reset-password", {
    body: { token: linkToken(), new_password: "another fine sentence" },
  });
  const rows = accounts.auditRows();
  expect(rows.map(({ action, outcome }) => `${action} ${outcome}`)).toEqual([
    "auth.register success",
    "auth.login success",
    "auth.email_verify failure",
    "auth.email_verify success",
    "auth.password_forgot success",
    "auth.password_reset success",
  ]);
  for (const secret of secrets) expect(JSON.stringify(rows)).not.toContain(secret);
});
