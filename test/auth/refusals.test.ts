import { afterEach, beforeEach, expect, test } from "bun:test";
import { users } from "../../src/db/schema.ts";
import { type Accounts, openAccounts, PASSWORD } from "./setup.ts";
import {
  ALICE_AT_GOOGLE,
  CLIENT_ID,
  CLIENT_SECRET,
  openGoogle,
  type StandInGoogle,
} from "./stand-in-google.ts";

/* Whatever is refused to who wants to be let in stands in the audit log, with the reason. */

let google: StandInGoogle;
let accounts: Accounts;
let access: string;
let refreshToken: string;
beforeEach(async () => {
  google = await openGoogle();
  accounts = open("open");
  await accounts.register("alice");
  const { body } = await accounts.signIn("alice");
  access = body.access_token;
  refreshToken = body.refresh_token;
});
afterEach(() => {
  accounts.close();
  google.close();
});

function open(registration: "open" | "closed") {
  const { endpoints } = google;
  const clients = { clientIds: [CLIENT_ID], clientSecret: CLIENT_SECRET };
  return openAccounts({ registration, google: { endpoints, ...clients } });
}

async function lock(): Promise<void> {
  for (let n = 0; n < 5; n++) await accounts.signIn("alice", "wrong password");
}

const post = (path: string, body: unknown) => accounts.call("POST", `/api/v1/auth/${path}`, { body });
const changePassword = (current_password: string) =>
  accounts.call("PUT", "/api/v1/users/me/password", {
    token: access,
    body: { current_password, new_password: "another fine sentence" },
  });
const withGoogle = async (claims: object) =>
  post("google", { token: await google.sign({ ...ALICE_AT_GOOGLE, ...claims }) });

type Case = [what: string, act: () => Promise<{ status: number }>, status: number, row: object];

test.each<Case>([
  [
    "signing in while locked",
    async () => {
      await lock();
      return accounts.signIn("alice");
    },
    403,
    { action: "auth.login", username: "alice", detail: { reason: "locked" } },
  ],
  [
    "signing in by another name while the account is locked",
    async () => {
      await lock();
      return accounts.signIn("alice@example.com");
    },
    401,
    { action: "auth.login", username: "alice", detail: { reason: "locked" } },
  ],
  [
    "changing the password while locked",
    async () => {
      await lock();
      return changePassword(PASSWORD);
    },
    403,
    { action: "user.password_change", username: "alice", detail: { reason: "locked" } },
  ],
  [
    "resetting with a token that is none",
    () => post("reset-password", { token: "nonsense", new_password: "another fine sentence" }),
    400,
    { action: "auth.password_reset", userId: null, detail: { reason: "invalid_token" } },
  ],
  [
    "registering a name that is taken",
    () => accounts.register("Alice"),
    409,
    {
      action: "auth.register",
      userId: null,
      detail: { reason: "already_exists", fields: ["username", "email"] },
    },
  ],
  [
    "registering where registration is closed",
    async () => {
      accounts.close();
      accounts = open("closed");
      return accounts.register("bob");
    },
    403,
    { action: "auth.register", detail: { reason: "registration_closed" } },
  ],
  [
    "Google's token that is none",
    () => post("google", { token: "nonsense" }),
    400,
    { action: "auth.login", userId: null, detail: { method: "google", reason: "invalid_token" } },
  ],
  [
    "coming back from Google without having set out",
    () => accounts.call("GET", "/api/v1/auth/google/callback?code=x&state=y"),
    400,
    { action: "auth.login", detail: { method: "google", reason: "invalid_token" } },
  ],
  [
    "Google's word for an address that an account has and has not proven",
    () => withGoogle({ email: "alice@example.com" }),
    409,
    { action: "auth.login", detail: { method: "google", reason: "already_exists" } },
  ],
  [
    "Google's word for someone new where registration is closed",
    async () => {
      accounts.close();
      accounts = open("closed");
      return withGoogle({});
    },
    403,
    { action: "auth.login", detail: { method: "google", reason: "registration_closed" } },
  ],
  [
    "Google's word for a deactivated account",
    async () => {
      await withGoogle({});
      accounts.db.update(users).set({ isActive: false }).run();
      return withGoogle({});
    },
    403,
    {
      action: "auth.login",
      username: expect.stringMatching(/^alice-/),
      detail: { method: "google", reason: "deactivated" },
    },
  ],
])("%s", async (_what, act, status, row) => {
  expect((await act()).status).toBe(status);
  expect(accounts.auditRows().at(-1)).toMatchObject({ ...row, outcome: "failure", ip: "203.0.113.7" });
});

test("refreshing once more with the same token stands there as such", async () => {
  for (let n = 0; n < 2; n++) await post("refresh", { refresh_token: refreshToken });
  const rows = accounts.auditRows().filter(({ action }) => action === "auth.refresh");
  expect(rows.map(({ outcome, detail }) => [outcome, detail.repeated])).toEqual([
    ["success", undefined],
    ["success", true],
  ]);
});
