import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { type Running, serve } from "../http/server.ts";
import { openSmtpServer } from "../mail/smtp.ts";
import { until } from "../until.ts";
import { type Accounts, openAccounts, PASSWORD } from "./setup.ts";

let smtp: Awaited<ReturnType<typeof openSmtpServer>>;
let accounts: Accounts;
let server: Running;

beforeEach(async () => {
  smtp = await openSmtpServer();
  accounts = openAccounts({ smtpUrl: new URL(smtp.url) });
  accounts.mailer.start();
});
afterEach(async () => {
  await server[Symbol.asyncDispose]();
  await accounts.mailer.stop();
  accounts.close();
  await smtp.close();
});

function open(rateLimits = { generalPerMinute: 0, authPerMinute: 0 }) {
  const { routers, guard } = accounts;
  server = serve({ routers, identify: guard.identify, config: { rateLimits } });
}

async function call(method: string, path: string, { body, token }: { body?: unknown; token?: string } = {}) {
  const response = await fetch(server.url + path, {
    method,
    headers: {
      ...(body !== undefined && { "content-type": "application/json" }),
      ...(token !== undefined && { authorization: `Bearer ${token}` }),
    },
    ...(body !== undefined && { body: JSON.stringify(body) }),
  });
  const text = await response.text();
  const isJson = response.headers.get("content-type")?.startsWith("application/json");
  return { status: response.status, headers: response.headers, text, body: isJson ? JSON.parse(text) : null };
}

const ALICE = { username: "alice", email: "alice@example.com", password: PASSWORD };
const signIn = () => call("POST", "/api/v1/auth/login", { body: { email: ALICE.email, password: PASSWORD } });

describe("over HTTP and SMTP", () => {
  test("an account from registration to deletion, and no secret in the log", async () => {
    open();
    expect((await call("POST", "/api/v1/auth/register/", { body: ALICE })).status).toBe(201);
    await until(() => smtp.received.length === 1);
    const letter = (smtp.received[0]?.raw ?? "").replaceAll("=\r\n", "").replaceAll("=3D", "=");
    const linkToken = /verify-email\?token=([\w-]{43})/.exec(letter)?.[1] ?? "";

    const page = await fetch(`${server.url}/verify-email?token=${linkToken}`);
    expect(page.headers.get("content-security-policy")).toContain("default-src 'none'");
    expect(page.headers.get("x-frame-options")).toBe("DENY");
    const pressed = await fetch(`${server.url}/verify-email`, {
      method: "POST",
      body: new URLSearchParams({ token: linkToken }),
    });
    expect(pressed.status).toBe(200);

    const login = await signIn();
    expect(login.body.user.is_verified).toBe(true);
    const { refresh_token } = login.body;
    const refreshed = await call("POST", "/api/v1/auth/refresh", { body: { refresh_token } });
    const token = refreshed.body.access_token;
    expect((await call("GET", "/api/v1/auth/me", { token })).body.username).toBe("alice");
    expect((await call("GET", "/api/v1/users/me/sessions", { token })).body).toHaveLength(1);
    expect((await call("POST", "/api/v1/auth/logout", { token })).status).toBe(200);
    expect((await call("GET", "/api/v1/auth/me", { token })).status).toBe(401);

    const again = await signIn();
    expect((await call("DELETE", "/api/v1/users/me", { token: again.body.access_token })).status).toBe(200);
    expect((await signIn()).status).toBe(401);

    const log = server.logged() + accounts.logged.join("");
    for (const secret of [PASSWORD, linkToken, refresh_token, token]) expect(log).not.toContain(secret);
    const users = server.lines.map(({ path, user }) => path === "/api/v1/auth/me" && user).filter(Boolean);
    expect(users).toEqual([login.body.user.id]);
  });

  test("the sixth try at a credential within a minute is 429, pages included; reading goes on", async () => {
    open({ generalPerMinute: 100, authPerMinute: 5 });
    await call("POST", "/api/v1/auth/register", { body: ALICE });
    const { body } = await signIn();
    for (let n = 0; n < 3; n++)
      await call("POST", "/api/v1/auth/forgot-password", { body: { email: ALICE.email } });
    const refused = await signIn();
    expect(refused.status).toBe(429);
    expect(refused.body).toMatchObject({ retry_after: expect.any(Number), path: "/api/v1/auth/login" });
    const form = { method: "POST", body: new URLSearchParams({ token: "x" }) };
    expect((await fetch(`${server.url}/verify-email`, form)).status).toBe(429);
    const me = await call("GET", "/api/v1/auth/me", { token: body.access_token });
    expect(me.status).toBe(200);
    expect(me.headers.get("x-ratelimit-remaining")).toBe("99");
  });

  test("users behind one address have allowances of their own", async () => {
    open({ generalPerMinute: 3, authPerMinute: 0 });
    await call("POST", "/api/v1/auth/register", { body: ALICE });
    await call("POST", "/api/v1/auth/register", {
      body: { ...ALICE, username: "bob", email: "bob@example.com" },
    });
    const alice = (await signIn()).body.access_token;
    const bob = (await call("POST", "/api/v1/auth/login", { body: { username: "bob", password: PASSWORD } }))
      .body.access_token;
    const statuses = async (token: string) => {
      const seen: number[] = [];
      for (let n = 0; n < 4; n++) seen.push((await call("GET", "/api/v1/auth/me", { token })).status);
      return seen;
    };
    expect(await statuses(alice)).toEqual([200, 200, 200, 429]);
    expect(await statuses(bob)).toEqual([200, 200, 200, 429]);
  });
});
