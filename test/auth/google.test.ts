import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { exportSPKI, SignJWT } from "jose";
import { users } from "../../src/db/schema.ts";
import { type Accounts, openAccounts, PASSWORD } from "./setup.ts";
import {
  ALICE_AT_GOOGLE,
  CLIENT_ID,
  CLIENT_SECRET,
  ISSUER,
  openGoogle,
  type StandInGoogle,
} from "./stand-in-google.ts";

let google: StandInGoogle;
let accounts: Accounts;
beforeEach(async () => {
  google = await openGoogle();
  accounts = openWith({});
});
afterEach(() => {
  accounts.close();
  google.close();
});

function openWith({ registration = "open" as "open" | "closed", clientIds = ["other-app", CLIENT_ID] }) {
  return openAccounts({ registration, google: { endpoints: google.endpoints, clientIds } });
}

const signIn = (token: string, field = "token") =>
  accounts.call("POST", "/api/v1/auth/google", { body: { token: null, id_token: null, [field]: token } });
/** Does what the newest link to alice@gmail.com is for. */
function useLink(purpose: "verify-email" | "reset-password") {
  const [message] = accounts.mailTo("alice@gmail.com");
  const token = /token=([\w-]+)/.exec(message?.textBody ?? "")?.[1];
  return accounts.call("POST", `/api/v1/auth/${purpose}`, { body: { token, new_password: PASSWORD } });
}
const everyone = () => accounts.db.select().from(users).all();

describe("a Google ID token", () => {
  test.each(["token", "id_token"])("given as %s makes an account and signs in", async (field) => {
    const answer = await signIn(await google.sign(ALICE_AT_GOOGLE), field);
    expect(answer.status).toBe(200);
    expect(answer.body).toMatchObject({
      token_type: "bearer",
      user: {
        username: "alice",
        email: "alice@gmail.com",
        full_name: "Alice Liddell",
        avatar_url: ALICE_AT_GOOGLE.picture,
        is_verified: true,
        role: "user",
      },
    });
    const me = await accounts.call("GET", "/api/v1/auth/me", { token: answer.body.access_token });
    expect(me.body).toEqual(answer.body.user);
    expect(accounts.auditRows().map(({ action }) => action)).toEqual(["auth.register", "auth.login"]);
  });

  test("signs in to the same account again, by the id and not by the address", async () => {
    const first = await signIn(await google.sign(ALICE_AT_GOOGLE));
    const moved = await signIn(await google.sign({ ...ALICE_AT_GOOGLE, email: "liddell@gmail.com" }));
    expect(moved.body.user.id).toBe(first.body.user.id);
    expect(everyone()).toHaveLength(1);
  });

  test("of the other spelling of Google's name is fine", async () => {
    expect((await signIn(await google.sign(ALICE_AT_GOOGLE, { issuer: "accounts.google.com" }))).status).toBe(
      200,
    );
  });

  const wrong: [name: string, make: () => Promise<string> | string][] = [
    ["is a word", () => "nonsense"],
    ["is three words", () => "a.b.c"],
    ["is signed by somebody else", () => google.sign(ALICE_AT_GOOGLE, { key: google.strangersKey })],
    ["names a key that Google does not have", () => google.sign(ALICE_AT_GOOGLE, { kid: "key-2" })],
    ["has another issuer", () => google.sign(ALICE_AT_GOOGLE, { issuer: "https://accounts.evil.example" })],
    [
      "is for another application",
      () => google.sign(ALICE_AT_GOOGLE, { audience: "another.apps.googleusercontent.com" }),
    ],
    ["has expired", () => google.sign(ALICE_AT_GOOGLE, { lifeSeconds: -3600 })],
    ["has an unverified address", () => google.sign({ ...ALICE_AT_GOOGLE, email_verified: false })],
    [
      "says nothing of the address being verified",
      () => google.sign({ ...ALICE_AT_GOOGLE, email_verified: undefined }),
    ],
    ["says verified in a string", () => google.sign({ ...ALICE_AT_GOOGLE, email_verified: "true" })],
    ["has no address", () => google.sign({ ...ALICE_AT_GOOGLE, email: undefined })],
    ["has no subject", () => google.sign({ ...ALICE_AT_GOOGLE, sub: "" })],
    [
      "never expires",
      async () => {
        const [head, , signature] = (await google.sign(ALICE_AT_GOOGLE)).split(".");
        return `${head}.${btoa(JSON.stringify({ ...ALICE_AT_GOOGLE, iss: ISSUER, aud: CLIENT_ID }))}.${signature}`;
      },
    ],
    [
      "has been changed",
      async () => {
        const [head, , signature] = (await google.sign(ALICE_AT_GOOGLE)).split(".");
        const [, payload] = (await google.sign({ ...ALICE_AT_GOOGLE, sub: "1" })).split(".");
        return `${head}.${payload}.${signature}`;
      },
    ],
    [
      "is not signed",
      async () => {
        const [, payload] = (await google.sign(ALICE_AT_GOOGLE)).split(".");
        return `${btoa('{"alg":"none"}').replaceAll("=", "")}.${payload}.`;
      },
    ],
    [
      "is signed with the public key as a shared secret",
      async () => {
        const secret = new TextEncoder().encode(await exportSPKI(google.publicKey));
        return new SignJWT(ALICE_AT_GOOGLE)
          .setProtectedHeader({ alg: "HS256", kid: "key-1" })
          .setIssuer(ISSUER)
          .setAudience(CLIENT_ID)
          .setExpirationTime("1h")
          .sign(secret);
      },
    ],
    [
      "is one of ours",
      async () => {
        await accounts.register("bob");
        return (await accounts.signIn("bob")).body.access_token;
      },
    ],
  ];
  test.each(wrong)("that %s is 400, and nobody is made or signed in", async (_name, make) => {
    const token = await make();
    const before = everyone();
    const answer = await signIn(token);
    expect(answer.status).toBe(400);
    expect(answer.body.detail).toBe("Invalid Google token");
    expect(everyone()).toEqual(before);
  });

  test.each([{}, { token: null }, { token: "" }, { token: 7 }])("missing, %o, is 422", async (body) => {
    expect((await accounts.call("POST", "/api/v1/auth/google", { body })).status).toBe(422);
  });

  test.each(["keys are down", "keys are nonsense"] as const)("while Google's %s is 503", async (mood) => {
    google.is(mood);
    const answer = await signIn(await google.sign(ALICE_AT_GOOGLE));
    expect(answer.status).toBe(503);
    expect(everyone()).toEqual([]);
    expect(accounts.logged.join("")).toContain("Google sign-in does not work");
  });

  test("while Google can't be reached is 503", async () => {
    const token = await google.sign(ALICE_AT_GOOGLE);
    google.close();
    expect((await signIn(token)).status).toBe(503);
  });
});

describe("an account with the same address", () => {
  const twin = { ...ALICE_AT_GOOGLE, email: "Alice@Example.com" };

  test("is linked when its address is verified, and keeps its password", async () => {
    const local = await accounts.register("alice");
    accounts.db.update(users).set({ isVerified: true }).run();
    const answer = await signIn(await google.sign(twin));
    expect(answer.status).toBe(200);
    expect(answer.body.user.id).toBe(local.body.id);
    expect((await accounts.signIn("alice")).status).toBe(200);
    expect(accounts.auditRows().map(({ action }) => action)).toContain("auth.google_link");
  });

  test("is not touched when its address is unverified: 409", async () => {
    await accounts.register("alice");
    const answer = await signIn(await google.sign(twin));
    expect(answer.status).toBe(409);
    expect(everyone()).toMatchObject([{ googleSub: null, isVerified: false }]);
  });

  test.each(["never", "by the owner of the mailbox"])(
    "that a stranger at Google has given it, verified %s, is the mailbox's alone after a reset",
    async (verified) => {
      const stranger = await google.sign({ ...ALICE_AT_GOOGLE, sub: "666", email: "mallory@gmail.com" });
      const { body } = await signIn(stranger);
      const address = { token: body.access_token, body: { email: "alice@gmail.com" } };
      expect((await accounts.call("PUT", "/api/v1/users/me", address)).status).toBe(200);
      if (verified !== "never") await useLink("verify-email");
      await accounts.call("POST", "/api/v1/auth/forgot-password", { body: { email: "alice@gmail.com" } });
      expect((await useLink("reset-password")).status).toBe(200);
      expect(everyone()).toMatchObject([{ email: "alice@gmail.com", googleSub: null }]);
      expect(accounts.auditRows().map(({ action }) => action)).toContain("auth.google_unlink");
      expect((await signIn(stranger)).body.user.id).not.toBe(body.user.id);
      expect((await signIn(await google.sign(ALICE_AT_GOOGLE))).body.user.id).toBe(body.user.id);
    },
  );

  test("keeps its own Google account over a reset", async () => {
    await signIn(await google.sign(ALICE_AT_GOOGLE));
    await accounts.call("POST", "/api/v1/auth/forgot-password", { body: { email: "alice@gmail.com" } });
    expect((await useLink("reset-password")).status).toBe(200);
    expect(everyone()).toMatchObject([{ googleSub: ALICE_AT_GOOGLE.sub }]);
  });

  test("is not linked to a second Google account: 409", async () => {
    await signIn(await google.sign(ALICE_AT_GOOGLE));
    const answer = await signIn(await google.sign({ ...ALICE_AT_GOOGLE, sub: "2" }));
    expect(answer.status).toBe(409);
    expect(everyone()).toHaveLength(1);
  });
});

describe("who may", () => {
  test("a deactivated account may not", async () => {
    await signIn(await google.sign(ALICE_AT_GOOGLE));
    accounts.db.update(users).set({ isActive: false }).run();
    expect((await signIn(await google.sign(ALICE_AT_GOOGLE))).status).toBe(403);
  });

  test("an account without a password can't be signed in to with one", async () => {
    await signIn(await google.sign(ALICE_AT_GOOGLE));
    expect((await accounts.signIn("alice", "undefined")).status).toBe(401);
  });

  test("nobody new where registration is closed, but who is there may", async () => {
    await signIn(await google.sign(ALICE_AT_GOOGLE));
    accounts.close();
    accounts = openWith({ registration: "closed" });
    const answer = await signIn(await google.sign(ALICE_AT_GOOGLE));
    expect(answer.status).toBe(403);
    expect(answer.body.errors[0].code).toBe("registration_closed");
    expect(everyone()).toEqual([]);
  });

  test.each([
    ["alice", "alice-"],
    ["al.ice+dev", "al-ice-dev"],
    ["a", "user-a"],
    ["...", "user"],
    ["a-very-long-mailbox-name-of-somebody", "a-very-long-mailbox-"],
  ])("the mailbox %s becomes a free username like %s", async (mailbox, start) => {
    await accounts.register("alice");
    const answer = await signIn(await google.sign({ ...ALICE_AT_GOOGLE, email: `${mailbox}@gmail.com` }));
    expect(answer.body.user.username).toStartWith(start);
    expect(answer.body.user.username).toMatch(/^[A-Za-z0-9][A-Za-z0-9_-]{2,29}$/);
  });

  test("without configuration it is 503", async () => {
    const without = openAccounts();
    const token = await google.sign(ALICE_AT_GOOGLE);
    expect((await without.call("POST", "/api/v1/auth/google", { body: { token } })).status).toBe(503);
    expect((await without.call("GET", "/api/v1/auth/google/login")).status).toBe(503);
    expect((await without.call("GET", "/api/v1/auth/google/callback?code=x&state=y")).status).toBe(503);
    without.close();
  });
});

describe("in a browser", () => {
  beforeEach(() => {
    accounts.close();
    const clients = { clientIds: [CLIENT_ID], clientSecret: CLIENT_SECRET };
    accounts = openAccounts({ google: { endpoints: google.endpoints, ...clients } });
  });

  async function setOut() {
    const answer = await accounts.call("GET", "/api/v1/auth/google/login");
    const setCookie = answer.headers.get("set-cookie") ?? "";
    const url = new URL(answer.headers.get("location") ?? "");
    return {
      answer,
      setCookie,
      cookie: setCookie.split(";")[0] ?? "",
      url,
      state: url.searchParams.get("state") ?? "",
    };
  }
  const comeBack = (query: Record<string, string>, cookie?: string) =>
    accounts.call("GET", `/api/v1/auth/google/callback?${new URLSearchParams(query)}`, {
      headers: cookie === undefined ? {} : { cookie },
    });

  test("goes to Google with PKCE, state and nonce, and remembers them where no script reads", async () => {
    const { answer, setCookie, url } = await setOut();
    expect(answer.status).toBe(302);
    expect(url.href).toStartWith(google.endpoints.authorize);
    expect(Object.fromEntries(url.searchParams)).toMatchObject({
      response_type: "code",
      client_id: CLIENT_ID,
      redirect_uri: "https://devpocket.example.org/api/v1/auth/google/callback",
      scope: "openid email profile",
      code_challenge_method: "S256",
      code_challenge: expect.stringMatching(/^[\w-]{43}$/),
      state: expect.stringMatching(/^[\w-]{20,}$/),
      nonce: expect.stringMatching(/^[\w-]{20,}$/),
    });
    expect(setCookie).toStartWith("__Host-devpocket-google=");
    for (const attribute of ["HttpOnly", "Secure", "SameSite=Lax", "Path=/", "Max-Age=600"]) {
      expect(setCookie).toContain(attribute);
    }
  });

  test("comes back signed in, once", async () => {
    const { url, state, cookie } = await setOut();
    const code = google.consent(url);
    const answer = await comeBack({ code, state }, cookie);
    expect(answer.status).toBe(200);
    expect(answer.body.user.email).toBe("alice@gmail.com");
    expect(answer.headers.get("set-cookie")).toContain("Max-Age=0");
    expect((await comeBack({ code, state }, cookie)).status).toBe(400);
  });

  test("a callback that this browser did not set out for is 400, and spends no code", async () => {
    const { url, state, cookie } = await setOut();
    const victim = await setOut();
    const code = google.consent(url);
    for (const [query, withCookie] of [
      [{ code, state }, undefined],
      [{ code, state }, victim.cookie],
      [{ code, state: "other" }, cookie],
      [{ code }, cookie],
      [{ state }, cookie],
      [{ error: "access_denied", state }, cookie],
    ] as const) {
      expect((await comeBack(query, withCookie)).status).toBe(400);
    }
    expect(everyone()).toEqual([]);
    expect((await comeBack({ code, state }, cookie)).status).toBe(200);
  });

  test("a code that another browser was given does not serve this one: PKCE", async () => {
    const attacker = await setOut();
    const code = google.consent(attacker.url);
    const { state, cookie } = await setOut();
    expect((await comeBack({ code, state }, cookie)).status).toBe(400);
    expect(everyone()).toEqual([]);
  });

  test.each([
    ["another nonce", { nonce: "other" }],
    ["no nonce", { nonce: undefined }],
    ["an unverified address", { email_verified: false }],
  ])("an ID token with %s is 400", async (_name, changed) => {
    google.changesClaims((claims) => ({ ...claims, ...changed }));
    const { url, state, cookie } = await setOut();
    expect((await comeBack({ code: google.consent(url), state }, cookie)).status).toBe(400);
    expect(everyone()).toEqual([]);
  });

  test.each(["token endpoint is down", "secret is refused"] as const)("while the %s is 503", async (mood) => {
    google.is(mood);
    const { url, state, cookie } = await setOut();
    expect((await comeBack({ code: google.consent(url), state }, cookie)).status).toBe(503);
    expect(accounts.logged.join("")).not.toContain(CLIENT_SECRET);
  });
});
