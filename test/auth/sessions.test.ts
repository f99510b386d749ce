import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { TimeSpan } from "oslo";
import { createJWT } from "oslo/jwt";
import { inTransaction } from "../../src/db/open.ts";
import { refreshTokens, sessions, users } from "../../src/db/schema.ts";
import { type Accounts, type Answer, openAccounts, SECRET } from "./setup.ts";

let accounts: Accounts;
let login: Answer;
beforeEach(async () => {
  accounts = openAccounts();
  await accounts.register("alice");
  login = await accounts.signIn("alice");
});
afterEach(() => accounts.close());

const SECOND = 1000;
const DAY = 86_400_000;

const me = (token: string) => accounts.call("GET", "/api/v1/auth/me", { token });
const refresh = (refresh_token: string) =>
  accounts.call("POST", "/api/v1/auth/refresh", { body: { refresh_token } });
const payload = (token: string) =>
  JSON.parse(atob((token.split(".")[1] ?? "").replaceAll("-", "+").replaceAll("_", "/")));

describe("tokens", () => {
  test("carry the documented claims", () => {
    const access = payload(login.body.access_token);
    const user = login.body.user;
    const common = {
      sub: user.id,
      username: "alice",
      email: "alice@example.com",
      role: "user",
      sid: access.sid,
    };
    expect(access).toEqual({
      ...common,
      type: "access_token",
      jti: expect.any(String),
      iat: expect.any(Number),
      exp: access.iat + 3600,
    });
    const refreshToken = payload(login.body.refresh_token);
    expect(refreshToken).toMatchObject({
      ...common,
      type: "refresh_token",
      exp: refreshToken.iat + 7 * 86_400,
    });
    expect(refreshToken.jti).not.toBe(access.jti);
  });

  const encode = (text: string) => new TextEncoder().encode(text);
  const forged: [name: string, token: (access: string) => string | Promise<string>][] = [
    ["nothing", () => ""],
    ["a word", () => "token"],
    ["three empty parts", () => ".."],
    ["not base64", () => "!!.!!.!!"],
    ["a cut signature", (access) => access.slice(0, -4)],
    ["a changed payload", (access) => access.replace(/\.(.)/, (_, c) => `.${c === "e" ? "f" : "e"}`)],
    ["no signature", (access) => `${btoa('{"alg":"none","typ":"JWT"}')}.${access.split(".")[1]}.`],
    [
      "another key",
      (access) => createJWT("HS256", encode("another secret of thirty-two bytes"), payload(access)),
    ],
    ["another algorithm", (access) => createJWT("HS512", encode(SECRET), payload(access))],
    ["no exp", (access) => createJWT("HS256", encode(SECRET), { ...payload(access), exp: undefined })],
    ["no sid", (access) => createJWT("HS256", encode(SECRET), { ...payload(access), sid: undefined })],
    ["no type", (access) => createJWT("HS256", encode(SECRET), { ...payload(access), type: undefined })],
    [
      "another user's id",
      (access) => createJWT("HS256", encode(SECRET), { ...payload(access), sub: "0".repeat(24) }),
    ],
    [
      "a time of birth ahead",
      (access) =>
        createJWT("HS256", encode(SECRET), payload(access), { notBefore: new Date(Date.now() + DAY) }),
    ],
    [
      "its time over",
      (access) => createJWT("HS256", encode(SECRET), payload(access), { expiresIn: new TimeSpan(-1, "s") }),
    ],
  ];
  test.each(forged)("with %s are refused with 401", async (_name, forge) => {
    const answer = await me(await forge(login.body.access_token));
    expect(answer.status).toBe(401);
    expect(answer.headers.get("www-authenticate")).toBe("Bearer");
    expect(["Invalid or expired token", "Not authenticated"]).toContain(answer.body.detail);
  });

  test("end after an hour, also when they have been seen before", async () => {
    expect((await me(login.body.access_token)).status).toBe(200);
    accounts.advance(3600 * SECOND);
    expect((await me(login.body.access_token)).status).toBe(401);
  });

  test("are checked once while they are used, and their session each time", async () => {
    const token = login.body.access_token;
    const c = { get: () => undefined, set: () => {}, req: { header: () => `Bearer ${token}` } };
    // The one thing that is faked is Hono's context; what it holds is read by the guard itself.
    const identify = () =>
      accounts.guard.identify(c as unknown as Parameters<typeof accounts.guard.identify>[0]);
    const first = identify();
    expect(first).toBeInstanceOf(Promise);
    expect((await first)?.username).toBe("alice");
    expect(identify()).toMatchObject({ username: "alice" });
    await accounts.call("POST", "/api/v1/auth/logout", { token });
    expect(identify()).toBeUndefined();
  });

  test("of one type are not taken for the other", async () => {
    expect((await me(login.body.refresh_token)).status).toBe(401);
    expect((await refresh(login.body.access_token)).status).toBe(401);
  });

  test("work with the scheme in any case", async () => {
    const headers = { authorization: `bearer ${login.body.access_token}` };
    expect((await accounts.call("GET", "/api/v1/auth/me", { headers })).status).toBe(200);
  });
});

describe("signing out", () => {
  test("ends the session, its tokens and its sockets at once, and nothing else", async () => {
    const other = await accounts.signIn("alice");
    const answer = await accounts.call("POST", "/api/v1/auth/logout", { token: login.body.access_token });
    expect(answer.body).toEqual({ message: "Successfully logged out" });
    expect((await me(login.body.access_token)).status).toBe(401);
    expect((await refresh(login.body.refresh_token)).status).toBe(401);
    expect((await me(other.body.access_token)).status).toBe(200);
    expect(accounts.ended).toEqual([payload(login.body.access_token).sid]);
    expect(accounts.auditRows().map(({ action }) => action)).toContain("auth.logout");
  });

  test("needs a token", async () => {
    expect((await accounts.call("POST", "/api/v1/auth/logout")).status).toBe(401);
    expect(accounts.ended).toEqual([]);
  });

  test("that is rolled back tells nobody", async () => {
    const { sid } = payload(login.body.access_token);
    expect(() =>
      inTransaction(accounts.db, (tx) => {
        accounts.sessions.end(tx, sid);
        throw new Error("rolled back");
      }),
    ).toThrow("rolled back");
    await Promise.resolve();
    expect(accounts.ended).toEqual([]);
    expect((await me(login.body.access_token)).status).toBe(200);
  });
});

describe("a deactivated user", () => {
  test("is refused at once, by access and by refresh", async () => {
    accounts.db.update(users).set({ isActive: false }).run();
    expect((await me(login.body.access_token)).status).toBe(401);
    expect((await refresh(login.body.refresh_token)).status).toBe(401);
  });
});

describe("refresh", () => {
  test("answers new tokens of the same session", async () => {
    accounts.advance(10 * SECOND);
    const answer = await refresh(login.body.refresh_token);
    expect(answer.status).toBe(200);
    expect(Object.keys(answer.body).sort()).toEqual([
      "access_token",
      "expires_in",
      "refresh_token",
      "token_type",
    ]);
    expect(payload(answer.body.access_token).sid).toBe(payload(login.body.access_token).sid);
    expect(payload(answer.body.refresh_token).jti).not.toBe(payload(login.body.refresh_token).jti);
    expect((await me(answer.body.access_token)).status).toBe(200);
    expect((await me(login.body.access_token)).status).toBe(200);
  });

  test("side by side gets the same successor", async () => {
    const answers = await Promise.all(Array.from({ length: 5 }, () => refresh(login.body.refresh_token)));
    expect(answers.map(({ status }) => status)).toEqual([200, 200, 200, 200, 200]);
    expect(new Set(answers.map(({ body }) => body.refresh_token)).size).toBe(1);
    expect(accounts.db.select().from(refreshTokens).all()).toHaveLength(2);
  });

  test("again within 30 s gets the same successor, though it has been used", async () => {
    const next = await refresh(login.body.refresh_token);
    await refresh(next.body.refresh_token);
    accounts.advance(29 * SECOND);
    const again = await refresh(login.body.refresh_token);
    expect(again.body.refresh_token).toBe(next.body.refresh_token);
  });

  test("again after hours gets the same successor while that is unused: the answer was lost", async () => {
    const lost = await refresh(login.body.refresh_token);
    accounts.advance(5 * 3600 * SECOND);
    const again = await refresh(login.body.refresh_token);
    expect(again.status).toBe(200);
    expect(again.body.refresh_token).toBe(lost.body.refresh_token);
    expect((await refresh(again.body.refresh_token)).status).toBe(200);
  });

  test("of a token whose successor is in use ends the whole family", async () => {
    const other = await accounts.signIn("alice");
    const next = await refresh(login.body.refresh_token);
    const third = await refresh(next.body.refresh_token);
    accounts.advance(31 * SECOND);
    expect((await refresh(login.body.refresh_token)).status).toBe(401);
    expect((await refresh(third.body.refresh_token)).status).toBe(401);
    expect((await me(third.body.access_token)).status).toBe(401);
    expect((await me(other.body.access_token)).status).toBe(200);
    expect(accounts.ended).toEqual([payload(login.body.access_token).sid]);
    expect(accounts.auditRows().map(({ detail }) => detail.reason)).toContain("refresh_token_reused");
  });

  test("slides seven days at a time and ends after thirty", async () => {
    let token = login.body.refresh_token;
    for (const day of [6, 12, 18, 24, 29]) {
      accounts.advance((day === 29 ? 5 : 6) * DAY);
      const answer = await refresh(token);
      expect([day, answer.status]).toEqual([day, 200]);
      token = answer.body.refresh_token;
    }
    expect(payload(token).exp).toBeLessThanOrEqual(payload(login.body.refresh_token).iat + 30 * 86_400);
    accounts.advance(DAY);
    expect((await refresh(token)).status).toBe(401);
  });

  test("after seven idle days is refused", async () => {
    accounts.advance(7 * DAY);
    expect((await refresh(login.body.refresh_token)).status).toBe(401);
    expect(accounts.db.select().from(sessions).all()).toHaveLength(1);
  });

  test("without a token is 422, with a forged one 401", async () => {
    expect((await accounts.call("POST", "/api/v1/auth/refresh", { body: {} })).status).toBe(422);
    expect((await refresh("forged")).status).toBe(401);
  });
});
