import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { audit, SYSTEM_ACTOR } from "../../src/audit/audit.ts";
import { inTransaction } from "../../src/db/open.ts";
import { actionTokens, refreshTokens, sessions, signInFailures } from "../../src/db/schema.ts";
import { dropAuditBefore, tidy } from "../../src/users/housekeeping.ts";
import { type Accounts, openAccounts } from "../auth/setup.ts";

let accounts: Accounts;
let root: string;
beforeEach(async () => {
  accounts = openAccounts();
  root = await accounts.admin();
});
afterEach(() => accounts.close());

const DAY = 86_400_000;
const BASE = Date.parse("2024-03-01T00:00:00Z");

/** Adds rows with times of their own: one an hour from BASE on. */
function addRows(count: number, entry: { action: string; targetId?: string; userAgent?: string }) {
  const { userAgent = null, ...rest } = entry;
  inTransaction(accounts.db, (tx) => {
    for (let n = 0; n < count; n++) audit(tx, { ...SYSTEM_ACTOR, userAgent }, rest, BASE + n * 3_600_000);
  });
}

const list = (query: string) => accounts.call("GET", `/api/v1/audit?${query}`, { token: root });
const actions = (body: { action: string }[]) => body.map(({ action }) => action);

describe("the audit log", () => {
  test("shows every field, newest first, with pages", async () => {
    await accounts.register("alice");
    const { body, headers } = await list("limit=1");
    expect(headers.get("x-total-count")).toBe("3");
    expect(body).toEqual([
      {
        id: expect.stringMatching(/^[0-9a-f]{24}$/),
        timestamp: expect.stringMatching(/Z$/),
        user_id: expect.any(String),
        username: "alice",
        action: "auth.register",
        target_id: body[0].user_id,
        outcome: "success",
        ip_address: "203.0.113.7",
        user_agent: null,
        request_id: "req-1",
        detail: {},
      },
    ]);
    expect(actions((await list("limit=2&offset=1")).body)).toEqual(["auth.login", "user.create"]);
  });

  test("is filtered by user, by name or id, also after deletion", async () => {
    await accounts.register("alice");
    const { body } = await accounts.signIn("Alice");
    expect(actions((await list("user=ALICE")).body)).toEqual(["auth.login", "auth.register"]);
    expect((await list(`user=${body.user.id}`)).body).toHaveLength(2);
    await accounts.call("DELETE", "/api/v1/users/me", { token: body.access_token });
    expect((await list("user=alice")).body).toEqual([]);
    expect(actions((await list(`user=${body.user.id}`)).body)).toEqual([
      "user.delete",
      "auth.login",
      "auth.register",
    ]);
  });

  test.each([
    ["action=test.one", 3],
    ["action=test.*", 5],
    ["action=test", 0],
    ["action=%25", 0],
    ["target=t1", 3],
    ["outcome=failure", 1],
    ["outcome=success&action=test.*", 5],
    ["action=test.*&from=2024-03-01T01:00:00Z", 3],
    ["action=test.*&to=2024-03-01T01:00:00Z", 2],
    ["action=test.*&from=2024-03-01&to=2024-03-02", 5],
    ["action=test.*&from=2024-03-01T02:00:00%2B01:00&to=2024-03-01T02:00:00Z", 2],
    ["user=nobody", 0],
  ])("%s finds %d", async (query, count) => {
    addRows(3, { action: "test.one", targetId: "t1" });
    addRows(2, { action: "test.two", targetId: "t2" });
    await accounts.signIn("nobody", "wrong password");
    const { body, headers } = await list(query);
    expect(body).toHaveLength(count);
    expect(headers.get("x-total-count")).toBe(String(count));
  });

  test.each(["outcome=maybe", "from=yesterday", "to=2024-13-45", "limit=0"])("%s is 422", async (query) => {
    expect((await list(query)).status).toBe(422);
  });
});

describe("the export", () => {
  const download = (query: string) => accounts.call("GET", `/api/v1/audit/export?${query}`, { token: root });

  test("has every row once, however many, and is audited itself", async () => {
    addRows(1600, { action: "test.many" });
    const answer = await download("action=test.many");
    expect(answer.headers.get("content-type")).toBe("application/x-ndjson");
    expect(answer.headers.get("content-disposition")).toBe('attachment; filename="devpocket-audit.ndjson"');
    const rows = answer.text
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line));
    expect(new Set(rows.map(({ id }) => id)).size).toBe(1600);
    expect(rows.map(({ timestamp }) => timestamp)).toEqual(
      rows
        .map(({ timestamp }) => timestamp)
        .sort()
        .reverse(),
    );
    expect(actions((await list("action=audit.export")).body)).toEqual(["audit.export"]);
  });

  test("as CSV quotes what needs it and defuses formulas", async () => {
    addRows(1, { action: "test.csv", userAgent: '=HYPERLINK("http://evil","x")' });
    const { text, headers } = await download("format=csv&action=test.csv");
    expect(headers.get("content-type")).toStartWith("text/csv");
    const [head, line, end] = text.split("\r\n");
    expect(head).toBe(
      "id,timestamp,user_id,username,action,target_id,outcome,ip_address,user_agent,request_id,detail",
    );
    expect(line).toContain(`,"'=HYPERLINK(""http://evil"",""x"")",`);
    expect(line).toEndWith(",{}");
    expect(end).toBe("");
  });

  test("of nothing is empty, with a head as CSV", async () => {
    expect((await download("action=none")).text).toBe("");
    expect((await download("action=none&format=csv")).text.split("\r\n")).toHaveLength(2);
  });

  test("in another format is 422", async () => {
    expect((await download("format=xml")).status).toBe(422);
  });
});

describe("housekeeping", () => {
  test("drops audit rows older than their time, over several batches, and no others", async () => {
    addRows(4500, { action: "test.old" });
    expect(await dropAuditBefore(accounts.db, BASE + 4400 * 3_600_000)).toBe(4400);
    expect((await list("action=test.old&limit=1")).headers.get("x-total-count")).toBe("100");
    expect((await list("action=auth.*")).body).toHaveLength(1);
  });

  test("keeps all of them without a limit", async () => {
    addRows(3, { action: "test.old" });
    await tidy({ ...accounts, auditRetentionMs: null });
    expect((await list("action=test.old")).body).toHaveLength(3);
    await tidy({ ...accounts, auditRetentionMs: DAY });
    expect((await list("action=test.old")).body).toEqual([]);
  });

  test("ends what has expired, and nothing that lives", async () => {
    await accounts.register("alice");
    await accounts.signIn("alice");
    await accounts.signIn("alice", "wrong password");
    const count = () =>
      [sessions, refreshTokens, actionTokens, signInFailures].map(
        (table) => accounts.db.select().from(table).all().length,
      );
    await tidy({ ...accounts, auditRetentionMs: null });
    expect(count()).toEqual([2, 2, 1, 2]);
    accounts.advance(7 * DAY);
    await accounts.signIn("alice");
    await tidy({ ...accounts, auditRetentionMs: null });
    expect(count()).toEqual([1, 1, 0, 0]);
    expect(accounts.ended).toHaveLength(2);
  });
});
