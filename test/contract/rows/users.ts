import { expect } from "bun:test";
import type { Table } from "../row.ts";
import { anyId, anyText, anyTime } from "../site.ts";
import { adminOf } from "../world.ts";

const ME = "GET /api/v1/users/me";
const UPDATE = "PUT /api/v1/users/me";
const DELETE = "DELETE /api/v1/users/me";
const PASSWORD = "PUT /api/v1/users/me/password";
const ADMINISTER = "PUT /api/v1/users/{user_id}";
const AUDIT = "GET /api/v1/audit";

export const USERS: Table = [
  [
    "D not in the texts",
    "users/me is what auth/me is",
    async ({ main, ada }) => {
      const { body } = await main.call(ME, { as: ada, status: 200, answer: { username: "ada" } });
      expect(body).toEqual((await main.call("GET /api/v1/auth/me", { as: ada, status: 200 })).body);
    },
  ],
  [
    "R 1391, R 1404, D PUT /users/me",
    "name, address and picture can be changed; a new address is unverified again and gets a message",
    async ({ main }) => {
      const person = await main.person();
      const token = await main.linkToken("verify-email", person.email);
      await main.call("POST /api/v1/auth/verify-email", { body: { token }, status: 200 });
      const email = `new-${person.email}`;
      await main.call(UPDATE, {
        as: person,
        body: { full_name: "John Updated Doe", email, avatar_url: "https://example.com/me.png" },
        status: 200,
        answer: {
          email,
          full_name: "John Updated Doe",
          avatar_url: "https://example.com/me.png",
          is_verified: false,
          updated_at: anyTime,
        },
      });
      expect(await main.linkToken("verify-email", email)).not.toBe("");
    },
  ],
  [
    "R 1417",
    "an address that another account has is 400",
    ({ main, ada, bob }) =>
      main.call(UPDATE, {
        as: bob,
        body: { email: ada.email },
        status: 400,
        answer: { detail: "Email already exists", errors: [{ field: "email" }] },
      }),
  ],
  [
    "R 1419",
    "an address or picture that is none is 422",
    async ({ main, bob }) => {
      for (const body of [{ email: "no address" }, { avatar_url: "javascript:alert(1)" }, { full_name: 7 }]) {
        await main.call(UPDATE, { as: bob, body, status: 422, answer: { errors: [{ message: anyText }] } });
      }
    },
  ],
  [
    "R 1421, R 1428, D DELETE /users/me",
    "an account deletes itself with its environments; it is signed out at once and its names are free",
    async ({ main }) => {
      const person = await main.person();
      await main.environment(person);
      await main.call(DELETE, {
        as: person,
        status: 200,
        answer: { message: "User account deleted successfully" },
      });
      await main.call(ME, { as: person, status: 401 });
      await main.call("POST /api/v1/auth/login", {
        body: { username: person.username, password: person.password },
        status: 401,
      });
      const { username, email, password } = person;
      await main.call("POST /api/v1/auth/register", { body: { username, email, password }, status: 201 });
    },
  ],
  [
    "D administrators",
    "the last active administrator can't be deleted, demoted or deactivated",
    async ({ mailing }) => {
      const admin = await adminOf(mailing);
      const answer = { detail: expect.stringContaining("last active administrator") };
      await mailing.call(DELETE, { as: admin, status: 409, answer });
      for (const body of [{ role: "user" }, { is_active: false }]) {
        const params = { user_id: admin.id };
        await mailing.call(ADMINISTER, { as: admin, params, body, status: 409, answer });
      }
    },
  ],
  [
    "D not in the texts, tokens",
    "changing the password ends all sessions; a wrong present one is 400, a weak new one 422",
    async ({ main }) => {
      const person = await main.person();
      const [current_password, new_password] = [person.password, "quite another password"];
      const change = (body: object, status: number) => main.call(PASSWORD, { as: person, body, status });
      await change({ current_password: "wrong", new_password }, 400);
      await change({ current_password, new_password: "short" }, 422);
      await change({ current_password, new_password }, 200);
      await main.call(ME, { as: person, status: 401 });
      await main.signIn(person.username, new_password);
    },
  ],
  [
    "D POST /auth/login",
    "wrong guesses of the present password lock the account too",
    async ({ main }) => {
      const person = await main.person();
      const body = { current_password: "wrong", new_password: "quite another password" };
      for (let n = 0; n < 5; n++) await main.call(PASSWORD, { as: person, body, status: 400 });
      const { headers } = await main.call(PASSWORD, { as: person, body, status: 403 });
      expect(Number(headers.get("retry-after"))).toBeGreaterThan(800);
    },
  ],
  [
    "D not in the texts, tokens",
    "sessions are listed, newest first, and can be ended one by one; its tokens end at once",
    async ({ main }) => {
      const first = await main.person();
      const second = await main.signIn(first.username, first.password);
      const { body: sessions } = await main.call("GET /api/v1/users/me/sessions", {
        as: second,
        status: 200,
        answer: [
          {
            id: anyText,
            created_at: anyTime,
            last_used_at: anyTime,
            expires_at: anyTime,
            ip_address: "127.0.0.1",
            user_agent: expect.stringContaining("Bun"),
            is_current: true,
          },
          { is_current: false },
        ],
      });
      const END = "DELETE /api/v1/users/me/sessions/{session_id}";
      const params = { session_id: sessions[1].id };
      await main.call(END, { as: second, params, status: 204 });
      await main.call(ME, { as: first, status: 401 });
      await main.call(ME, { as: second, status: 200 });
      await main.call(END, { as: second, params, status: 404, answer: { detail: "Session not found" } });
    },
  ],
  [
    "D administrators",
    "administrators see all users and change plan, role and whether they are active",
    async ({ main, admin }) => {
      const person = await main.person();
      const params = { user_id: person.id };
      const { body: users } = await main.call("GET /api/v1/users", {
        as: admin,
        query: { limit: "1" },
        status: 200,
        answer: [{ id: person.id, username: person.username, subscription_plan: "free" }],
      });
      expect(users).toHaveLength(1);
      const change = { subscription_plan: "starter", role: "admin" };
      await main.call(ADMINISTER, { as: admin, params, body: change, status: 200, answer: change });
      await main.call(AUDIT, { as: person, status: 200 });
      await main.call(ADMINISTER, { as: admin, params, body: { role: "user" }, status: 200 });
      await main.call(AUDIT, { as: person, status: 403 });
      const away = { is_active: false };
      await main.call(ADMINISTER, { as: admin, params, body: away, status: 200, answer: away });
      await main.call(ME, { as: person, status: 401 });
      const { username, password } = person;
      await main.call("POST /api/v1/auth/login", { body: { username, password }, status: 403 });
    },
  ],
  [
    "D administrators",
    "an unknown user is 404, a plan or role that there is not 422",
    async ({ main, admin, bob }) => {
      const unknown = { user_id: "0".repeat(24) };
      await main.call(ADMINISTER, { as: admin, params: unknown, body: {}, status: 404 });
      for (const body of [{ subscription_plan: "gold" }, { role: "root" }, { is_active: "no" }]) {
        await main.call(ADMINISTER, { as: admin, params: { user_id: bob.id }, body, status: 422 });
      }
    },
  ],
  [
    "R 2319",
    "what is done is in the audit log: who, what, from where, how it ended, in which request",
    async ({ main, admin }) => {
      const person = await main.person();
      const sent = { "X-Request-Id": `audit-${person.username}`, "X-Forwarded-For": "203.0.113.7" };
      await main.call(UPDATE, { as: person, body: { full_name: "A" }, headers: sent, status: 200 });
      await main.call(AUDIT, {
        as: admin,
        query: { user: person.username, action: "user.update" },
        status: 200,
        answer: [
          {
            id: anyId,
            timestamp: anyTime,
            user_id: person.id,
            username: person.username,
            action: "user.update",
            target_id: person.id,
            outcome: "success",
            ip_address: "203.0.113.7",
            user_agent: expect.stringContaining("Bun"),
            request_id: sent["X-Request-Id"],
            detail: { fields: ["fullName"] },
          },
        ],
      });
    },
  ],
  [
    "R 2322",
    "the audit log is filtered by user, action, target, outcome and time",
    async ({ main, admin }) => {
      const { username } = await main.person();
      await main.call("POST /api/v1/auth/login", { body: { username, password: "wrong" }, status: 401 });
      const found = async (query: Record<string, string>) =>
        (await main.call(AUDIT, { as: admin, query: { user: username, ...query }, status: 200 })).body;
      const all = await found({ action: "auth.*" });
      expect(all.map(({ action, outcome }: Record<string, string>) => `${action} ${outcome}`)).toEqual([
        "auth.login failure",
        "auth.login success",
        "auth.register success",
      ]);
      expect(await found({ outcome: "failure" })).toHaveLength(1);
      expect(await found({ target: all[0].target_id, action: "auth.*" })).toHaveLength(3);
      expect(await found({ from: all[0].timestamp })).toEqual([all[0]]);
      expect(await found({ to: "2024-01-01" })).toEqual([]);
      await main.call(AUDIT, { as: admin, query: { from: "yesterday" }, status: 422 });
    },
  ],
  [
    "R 2319, D lists",
    "the audit log is exported as NDJSON or CSV, with the same filters",
    async ({ main, admin }) => {
      const EXPORT = "GET /api/v1/audit/export";
      const filter = { user: "ada", action: "auth.login", outcome: "success", from: "2024-01-01" };
      const more = {
        to: "2999-01-01T00:00:00Z",
        target: (await main.signIn("ada", "ada's long password")).id,
      };
      const call = { as: admin, status: 200 };
      const ndjson = await main.call(EXPORT, { ...call, query: { ...filter, ...more } });
      const entries = ndjson.text.trim().split("\n");
      expect(JSON.parse(entries[0] ?? "")).toMatchObject({ username: "ada", action: "auth.login" });
      const csv = await main.call(EXPORT, { ...call, query: { ...filter, ...more, format: "csv" } });
      expect(csv.text.trim().split("\n")).toHaveLength(entries.length + 1);
      expect(csv.headers.get("content-disposition")).toContain("devpocket-audit.csv");
      await main.call(EXPORT, { as: admin, query: { format: "xml" }, status: 422 });
    },
  ],
];
