import { expect } from "bun:test";
import { jwtVerify } from "jose";
import { ALICE_AT_GOOGLE } from "../../auth/stand-in-google.ts";
import { until } from "../../until.ts";
import type { Table } from "../row.ts";
import { anyId, anyNumber, anyText, anyTime, type Site } from "../site.ts";
import { PUBLIC_URL } from "../world.ts";

const REGISTER = "POST /api/v1/auth/register";
const LOGIN = "POST /api/v1/auth/login";
const REFRESH = "POST /api/v1/auth/refresh";
const VERIFY = "POST /api/v1/auth/verify-email";
const RESEND = "POST /api/v1/auth/resend-verification";
const GOOGLE = "POST /api/v1/auth/google";
const ME = "GET /api/v1/auth/me";

const PASSWORD = "securePassword123, and more";

function claimsOf(token: string): Record<string, unknown> {
  return JSON.parse(Buffer.from(token.split(".")[1] ?? "", "base64url").toString());
}

/** A password of theirs is tried wrongly until the name is locked. */
async function lock(site: Site, name: string): Promise<void> {
  for (let n = 0; n < 5; n++) {
    const body = { username_or_email: name, password: "wrong, surely" };
    await site.call(LOGIN, { body, status: 401 });
  }
}

const invalid = (field: string, code: string) => ({
  detail: "Request validation failed",
  errors: [{ field, message: anyText, code }],
});

export const AUTHENTICATION: Table = [
  [
    "R 127, R 1157, R 2064, E 40, E 298, D POST /auth/register, user object",
    "registering answers 201 with the new account, which is not verified and on the free plan",
    ({ main }) =>
      main.call(REGISTER, {
        body: { username: "johndoe", email: "user@example.com", password: PASSWORD, full_name: "John Doe" },
        status: 201,
        answer: {
          id: anyId,
          username: "johndoe",
          email: "user@example.com",
          full_name: "John Doe",
          is_active: true,
          is_verified: false,
          avatar_url: null,
          subscription_plan: "free",
          created_at: anyTime,
          last_login: null,
          // D: the user object
          updated_at: anyTime,
          role: "user",
        },
      }),
  ],
  [
    "D POST /auth/register",
    "the full name may be absent or null",
    async ({ main }) => {
      const body = { username: "no-name", email: "no-name@example.org", password: PASSWORD };
      await main.call(REGISTER, { body, status: 201, answer: { full_name: null } });
      await main.call(REGISTER, {
        body: { ...body, username: "null-name", email: "null-name@example.org", full_name: null },
        status: 201,
        answer: { full_name: null },
      });
    },
  ],
  [
    "R 144, D unverified email",
    "registering sends a message with a link, without mail configured into the log",
    async ({ main }) => expect(await main.linkToken("verify-email", "user@example.com")).not.toBe(""),
  ],
  [
    "R 146, R 1304",
    "usernames are letters, digits, hyphens and underscores, 3 to 30 of them; anything else is 422",
    async ({ main }) => {
      const body = { username: "Ok_9-x", email: "ok@example.org", password: PASSWORD };
      await main.call(REGISTER, { body, status: 201 });
      for (const username of ["ab", "-ab", "a b", "ä-umlaut", "x".repeat(31), "a@b", ""]) {
        const fault = invalid("username", "invalid_format");
        await main.call(REGISTER, { body: { ...body, username }, status: 422, answer: fault });
      }
    },
  ],
  [
    "R 149, R 151",
    "what is invalid is 422 with an entry for each field: missing, of the wrong type, of the wrong form",
    async ({ main }) => {
      await main.call(REGISTER, {
        body: {},
        status: 422,
        answer: {
          errors: ["username", "email", "password"].map((field) => ({ field, code: "required" })),
        },
      });
      await main.call(REGISTER, {
        body: { username: 7, email: "nobody", password: PASSWORD },
        status: 422,
        answer: {
          errors: [
            { field: "username", code: "invalid_type" },
            { field: "email", message: "Invalid email format", code: "invalid_format" },
          ],
        },
      });
    },
  ],
  [
    "R 149, R 1304, R 2226",
    "a weak password is 422: short, long, one of the most common, or the username or email",
    async ({ main }) => {
      const names = { username: "weakling", email: "weakling-mail@example.org" };
      for (const [password, code] of [
        ["short", "min_length"],
        ["x".repeat(129), "max_length"],
        ["password123", "common_password"],
        ["Weakling", "personal_password"],
        ["weakling-mail@example.org", "personal_password"],
      ] as const) {
        const fault = invalid("password", code);
        await main.call(REGISTER, { body: { ...names, password }, status: 422, answer: fault });
      }
    },
  ],
  [
    "R 150",
    "a username or email in use is 409 and names the field, whatever its case",
    async ({ main, ada }) => {
      const fresh = { username: "fresh-one", email: "fresh@example.org", password: PASSWORD };
      for (const [field, value] of [
        ["username", "ADA"],
        ["email", ada.email.toUpperCase()],
      ] as const) {
        const body = { ...fresh, [field]: value };
        await main.call(REGISTER, { body, status: 409, answer: { errors: [{ field }] } });
      }
    },
  ],
  [
    "D registration",
    "closed registration is 403",
    ({ limited }) =>
      limited.call(REGISTER, {
        body: { username: "late", email: "late@example.org", password: PASSWORD },
        status: 403,
        answer: { errors: [{ code: "registration_closed" }] },
      }),
  ],
  [
    "R 33, R 168, R 2147, E 48, E 400, D POST /auth/login",
    "signing in answers with both tokens, their kind and life, and the whole account",
    ({ main, ada }) =>
      main.call(LOGIN, {
        body: { username_or_email: ada.username, password: ada.password },
        status: 200,
        answer: {
          access_token: anyText,
          refresh_token: anyText,
          token_type: "bearer",
          expires_in: 3600,
          user: {
            id: ada.id,
            username: "ada",
            email: ada.email,
            full_name: null,
            is_active: true,
            is_verified: false,
            avatar_url: null,
            subscription_plan: "pro",
            role: "user",
            created_at: anyTime,
            updated_at: anyTime,
            last_login: anyTime,
          },
        },
      }),
  ],
  [
    "R 163, E 50, D POST /auth/login",
    "the name may be given as username_or_email, email or username, in any case",
    async ({ main, ada }) => {
      for (const body of [
        { username_or_email: ada.email },
        { email: ada.email.toUpperCase() },
        { username: "Ada", email: null, username_or_email: null },
      ]) {
        await main.call(LOGIN, { body: { ...body, password: ada.password }, status: 200 });
      }
    },
  ],
  [
    "R 185",
    "a wrong password and an unknown account are 401 in the same words",
    async ({ main }) => {
      const { username } = await main.person();
      for (const name of [username, "nobody-at-all"]) {
        await main.call(LOGIN, {
          body: { username_or_email: name, password: "wrong, surely" },
          status: 401,
          answer: { detail: "Incorrect username or password", errors: [] },
        });
      }
    },
  ],
  [
    "R 186, R 1303",
    "five failures lock the account, known or not: 403 with Retry-After, for the right password too",
    async ({ main }) => {
      const { username, password } = await main.person();
      for (const name of [username, "an-unknown-name"]) {
        await lock(main, name);
        const { headers } = await main.call(LOGIN, {
          body: { username_or_email: name, password },
          status: 403,
          answer: { detail: anyText },
        });
        expect(Number(headers.get("retry-after"))).toBeWithin(890, 901);
      }
    },
  ],
  [
    "R 187",
    "a sign-in without a name or password is 422",
    async ({ main }) => {
      for (const body of [{ password: PASSWORD }, { username: "ada" }, { username: "", password: "" }]) {
        await main.call(LOGIN, { body, status: 422, answer: { detail: "Request validation failed" } });
      }
    },
  ],
  [
    "R 208, R 1356, E 10, E 61",
    "me is the account, and says when it signed in last",
    ({ main, ada }) =>
      main.call(ME, {
        as: ada,
        status: 200,
        answer: { id: ada.id, username: "ada", is_verified: false, last_login: anyTime, role: "user" },
      }),
  ],
  [
    "R 229, R 1344, E 67, D tokens",
    "signing out ends the session at once: access and refresh token are refused",
    async ({ main }) => {
      const person = await main.person();
      const { body } = await main.call("POST /api/v1/auth/logout", { as: person, status: 200 });
      expect(body).toEqual({ message: "Successfully logged out" });
      await main.call(ME, { as: person, status: 401, answer: { detail: anyText } });
      await main.call(REFRESH, { body: { refresh_token: person.refreshToken }, status: 401 });
    },
  ],
  [
    "R 251, E 73",
    "refreshing answers with new tokens and no account",
    async ({ main }) => {
      const { refreshToken } = await main.person();
      const { body } = await main.call(REFRESH, {
        body: { refresh_token: refreshToken },
        status: 200,
        answer: {
          access_token: anyText,
          refresh_token: anyText,
          token_type: "bearer",
          expires_in: anyNumber,
        },
      });
      expect(body.refresh_token).not.toBe(refreshToken);
      await main.call(ME, { as: body.access_token, status: 200 });
    },
  ],
  [
    "D POST /auth/refresh",
    "a refresh token used again at once gets the same successor",
    async ({ main }) => {
      const call = { body: { refresh_token: (await main.person()).refreshToken }, status: 200 };
      const [first, second] = [await main.call(REFRESH, call), await main.call(REFRESH, call)];
      expect(second.body.refresh_token).toBe(first.body.refresh_token);
    },
  ],
  [
    "R 241, D tokens",
    "an access token is no refresh token and the other way round",
    async ({ main, ada }) => {
      await main.call(REFRESH, { body: { refresh_token: ada.token }, status: 401 });
      await main.call(ME, { as: ada.refreshToken, status: 401 });
    },
  ],
  [
    "R 1290, R 2292",
    "tokens are HS256 and carry the reference's claims; access lives an hour, refresh seven days",
    async ({ main, ada }) => {
      const access = claimsOf(ada.token);
      expect(access).toMatchObject({
        sub: ada.id,
        username: "ada",
        email: ada.email,
        type: "access_token",
        sid: anyText,
        jti: anyText,
        role: "user",
      });
      const refresh = claimsOf(ada.refreshToken);
      expect(refresh).toMatchObject({ sub: ada.id, type: "refresh_token", sid: access.sid });
      const life = ({ exp, iat }: Record<string, unknown>) => Number(exp) - Number(iat);
      expect(life(access)).toBe(3600);
      expect(life(refresh)).toBe(7 * 86_400);
      const secret = await Bun.file(`${main.server.dataDir}/keys/jwt`).text();
      const { protectedHeader } = await jwtVerify(ada.token, new TextEncoder().encode(secret.trim()));
      expect(protectedHeader.alg).toBe("HS256");
    },
  ],
  [
    "R 274, E 80",
    "a link's token verifies the address, once",
    async ({ main }) => {
      const person = await main.person();
      const token = await main.linkToken("verify-email", person.email);
      await main.call(VERIFY, {
        body: { token },
        status: 200,
        answer: { message: "Email verified successfully" },
      });
      await main.call(ME, { as: person, status: 200, answer: { is_verified: true } });
      await main.call(VERIFY, { body: { token }, status: 400, answer: { detail: anyText } });
    },
  ],
  [
    "D POST /auth/verify-email",
    "a code counts only with its owner's token; a wrong one is 400, one without a token 401",
    async ({ mailing, smtp }) => {
      const person = await mailing.person();
      const message = await until(() => smtp.received.find((one) => one.recipients.includes(person.email)));
      const code = /\b(\d{6})\b/.exec(message.raw.split("\r\n\r\n").slice(1).join())?.[1] ?? "";
      await mailing.call(VERIFY, { body: { code }, status: 401 });
      const wrong = code === "000000" ? "000001" : "000000";
      await mailing.call(VERIFY, { as: person, body: { code: wrong }, status: 400 });
      await mailing.call(VERIFY, {
        as: person,
        body: { code },
        status: 200,
        answer: { message: "Email verified successfully" },
      });
    },
  ],
  [
    "D POST /auth/verify-email",
    "a link's token counts whatever access token comes along",
    async ({ main }) => {
      const { email } = await main.person();
      const body = { token: await main.linkToken("verify-email", email) };
      await main.call(VERIFY, { as: "stale", body, status: 200 });
    },
  ],
  [
    "R 1377, D POST /auth/verify-email",
    "with a bearer token and no body it sends the message again",
    async ({ main }) => {
      const person = await main.person();
      const answer = { message: "Verification email sent" };
      await main.call(VERIFY, { as: person, status: 200, answer });
    },
  ],
  ["R 264", "verifying nothing is 422", ({ main }) => main.call(VERIFY, { body: {}, status: 422 })],
  [
    "R 286, E 87, D POST /auth/resend-verification",
    "the message can be sent again; earlier links end",
    async ({ main }) => {
      const person = await main.person();
      const first = await main.linkToken("verify-email", person.email);
      await main.call(RESEND, { as: person, status: 200, answer: { message: "Verification email sent" } });
      const second = await until(async () => {
        const newest = await main.linkToken("verify-email", person.email);
        return newest !== first && newest;
      });
      await main.call(VERIFY, { body: { token: first }, status: 400 });
      await main.call(VERIFY, { body: { token: second }, status: 200 });
      await main.call(RESEND, {
        as: person,
        status: 400,
        answer: { errors: [{ field: "email", code: "already_verified" }] },
      });
      const code = "already_verified";
      await main.call(VERIFY, { as: person, status: 400, answer: { errors: [{ code }] } });
    },
  ],
  [
    "D POST /auth/resend-verification",
    "the message is sent again five times an hour for an account, whatever address it has meanwhile",
    async ({ main }) => {
      const person = await main.person();
      for (let n = 0; n < 5; n++) await main.call(RESEND, { as: person, status: 200 });
      const answer = { detail: "Too many verification messages. Try again later.", retry_after: anyNumber };
      await main.call(RESEND, { as: person, status: 429, answer });
      const body = { email: `elsewhere-${person.email}` };
      await main.call("PUT /api/v1/users/me", { as: person, body, status: 429, answer });
    },
  ],
  [
    "D not in the texts",
    "a forgotten password: the answer is the same for an unknown address, the link sets a new one once",
    async ({ main }) => {
      const person = await main.person();
      const FORGOT = "POST /api/v1/auth/forgot-password";
      const RESET = "POST /api/v1/auth/reset-password";
      const answers = [];
      for (const email of [person.email, "nobody@example.org"]) {
        answers.push((await main.call(FORGOT, { body: { email }, status: 200 })).body);
      }
      expect(answers[0]).toEqual(answers[1]);
      await main.call(FORGOT, { body: { email: "no address" }, status: 422 });
      const token = await main.linkToken("reset-password", person.email);
      const weak = { body: { token, new_password: "short" }, status: 422 };
      await main.call(RESET, { ...weak, answer: { errors: [{ field: "new_password" }] } });
      const call = { body: { token, new_password: "another long password" } };
      await main.call(RESET, { ...call, status: 200, answer: { message: anyText } });
      await main.call(RESET, { ...call, status: 400, answer: { detail: anyText } });
      await main.call(ME, { as: person, status: 401 });
      await main.signIn(person.username, "another long password");
    },
  ],
  [
    "D POST /auth/verify-email",
    "links lead to pages with a button, under a strict policy: opening one changes nothing",
    async ({ main }) => {
      const person = await main.person();
      const token = await main.linkToken("verify-email", person.email);
      const { headers, text } = await main.call("GET /verify-email", { query: { token }, status: 200 });
      expect(headers.get("content-security-policy")).toContain("default-src 'none'");
      expect(text).toContain("<button");
      await main.call(ME, { as: person, status: 200, answer: { is_verified: false } });
      const form = { text: `token=${token}`, type: "application/x-www-form-urlencoded" };
      await main.call("POST /verify-email", { raw: form, status: 200 });
      await main.call("POST /verify-email", { raw: form, status: 400 });
      await main.call(ME, { as: person, status: 200, answer: { is_verified: true } });
    },
  ],
  [
    "D not in the texts",
    "the page of a reset link takes the new password",
    async ({ main }) => {
      const person = await main.person();
      await main.call("POST /api/v1/auth/forgot-password", { body: { email: person.email }, status: 200 });
      const token = await main.linkToken("reset-password", person.email);
      await main.call("GET /reset-password", { query: { token }, status: 200 });
      const type = "application/x-www-form-urlencoded";
      const form = (password: string) => ({
        text: String(new URLSearchParams({ token, new_password: password })),
        type,
      });
      await main.call("POST /reset-password", { raw: form("short"), status: 422 });
      await main.call("POST /reset-password", { raw: form("another long password"), status: 200 });
      await main.call("POST /reset-password", { raw: form("another long password"), status: 400 });
    },
  ],
  [
    "R 203, R 1322, E 54, D POST /auth/google",
    "a Google ID token signs in as login does, under either name; the address counts as verified",
    async ({ mailing, google }) => {
      const token = await google.sign(ALICE_AT_GOOGLE);
      for (const body of [{ token }, { id_token: token }]) {
        await mailing.call(GOOGLE, {
          body,
          status: 200,
          answer: {
            access_token: anyText,
            refresh_token: anyText,
            token_type: "bearer",
            user: { email: "alice@gmail.com", full_name: "Alice Liddell", is_verified: true },
          },
        });
      }
    },
  ],
  [
    "R 1341",
    "a token that is not Google's for us is 400, a body without one 422",
    async ({ mailing, google }) => {
      const foreign = await google.sign(ALICE_AT_GOOGLE, { audience: "someone-else" });
      for (const token of ["google_oauth_token_here", foreign]) {
        await mailing.call(GOOGLE, { body: { token }, status: 400, answer: { detail: anyText } });
      }
      await mailing.call(GOOGLE, { body: {}, status: 422, answer: { errors: [{ field: "token" }] } });
    },
  ],
  [
    "D POST /auth/google",
    "where Google is not configured it is 503",
    async ({ main }) => {
      const answer = { detail: "Google sign-in is not configured" };
      await main.call(GOOGLE, { body: { token: "x" }, status: 503, answer });
      await main.call("GET /api/v1/auth/google/login", { status: 503, answer });
      await main.call("GET /api/v1/auth/google/callback", { status: 503, answer });
    },
  ],
  [
    "D POST /auth/google",
    "an address that a local account has and has not verified is 409; a deactivated account 403",
    async ({ mailing, google }) => {
      const { email } = await mailing.person();
      const claims = { ...ALICE_AT_GOOGLE, sub: "another", email };
      const body = { token: await google.sign(claims) };
      await mailing.call(GOOGLE, { body, status: 409, answer: { detail: anyText } });
      const carol = { token: await google.sign({ ...claims, sub: "carol", email: "carol@gmail.com" }) };
      const { user } = (await mailing.call(GOOGLE, { body: carol, status: 200 })).body;
      const admin = await mailing.signIn("admin", "correct horse battery");
      await mailing.call("PUT /api/v1/users/{user_id}", {
        as: admin,
        params: { user_id: user.id },
        body: { is_active: false },
        status: 200,
      });
      await mailing.call(GOOGLE, { body: carol, status: 403, answer: { detail: anyText } });
    },
  ],
  [
    "R 40, D Google in a browser",
    "a browser is sent to Google with PKCE, state and nonce, and comes back to the token response",
    async ({ mailing, google }) => {
      const begin = async (claims = ALICE_AT_GOOGLE) => {
        const { headers } = await mailing.call("GET /api/v1/auth/google/login", { status: 302 });
        const url = new URL(headers.get("location") ?? "");
        expect(url.origin).toBe("https://accounts.google.com");
        expect(url.searchParams.get("code_challenge_method")).toBe("S256");
        google.changesClaims(({ nonce }) => ({ ...claims, nonce }));
        const cookie = headers.get("set-cookie")?.split(";")[0] ?? "";
        const query = { code: google.consent(url), state: url.searchParams.get("state") ?? "" };
        return { query, headers: { Cookie: cookie } };
      };
      const CALLBACK = "GET /api/v1/auth/google/callback";
      const answer = { token_type: "bearer", user: { email: "alice@gmail.com" } };
      const visit = await begin();
      await mailing.call(CALLBACK, { ...visit, status: 200, answer });
      await mailing.call(CALLBACK, { query: visit.query, status: 400, answer: { detail: anyText } });
      await mailing.call(CALLBACK, { query: { error: "access_denied" }, status: 400 });
      await mailing.call(CALLBACK, { query: { code: "x".repeat(5000) }, status: 422 });
      const { email } = await mailing.person();
      const local = await begin({ ...ALICE_AT_GOOGLE, sub: "local", email });
      await mailing.call(CALLBACK, { ...local, status: 409 });
      const barred = await begin({ ...ALICE_AT_GOOGLE, sub: "carol", email: "carol@gmail.com" });
      await mailing.call(CALLBACK, { ...barred, status: 403 });
    },
  ],
  [
    "R 1305, D unverified email",
    "where mail is configured, creating an environment needs a verified address",
    async ({ mailing, smtp }) => {
      const person = await mailing.person();
      const create = { as: person, body: { name: "mine", template: "shell" } };
      await mailing.call("POST /api/v1/environments", {
        ...create,
        status: 403,
        answer: { errors: [{ field: "email", code: "email_unverified" }] },
      });
      const message = await until(() => smtp.received.find((one) => one.recipients.includes(person.email)));
      expect(message.raw.replaceAll("=\r\n", "")).toContain(`${PUBLIC_URL}/verify-email?token=`);
    },
  ],
];
