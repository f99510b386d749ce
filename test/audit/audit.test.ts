import { afterEach, beforeEach, expect, test } from "bun:test";
import { audit, SYSTEM_ACTOR } from "../../src/audit/audit.ts";
import { inTransaction } from "../../src/db/open.ts";
import { auditLog } from "../../src/db/schema.ts";
import { temporaryDatabase } from "../database.ts";

let database: ReturnType<typeof temporaryDatabase>;
beforeEach(() => {
  database = temporaryDatabase();
});
afterEach(() => database.remove());

const rows = () => database.db.select().from(auditLog).all();

test("a row says who, what, when, from where and how it went", () => {
  const actor = { userId: "u1", username: "alice", ip: "203.0.113.7", userAgent: "curl/8", requestId: "r1" };
  const entry = { action: "environment.create", targetId: "e1", detail: { plan: "free" } };
  inTransaction(database.db, (tx) => audit(tx, actor, entry, 1000));
  expect(rows()).toEqual([
    { id: expect.stringMatching(/^[0-9a-f]{24}$/), at: 1000, ...actor, ...entry, outcome: "success" },
  ]);
});

test("what DevPocket does by itself names nobody", () => {
  audit(database.db, SYSTEM_ACTOR, { action: "environment.sweep", outcome: "failure" }, 1000);
  expect(rows()).toMatchObject([{ userId: null, username: null, ip: null, outcome: "failure", detail: {} }]);
});

test("a change that is rolled back leaves no trace", () => {
  const change = () =>
    inTransaction(database.db, (tx) => {
      audit(tx, SYSTEM_ACTOR, { action: "environment.create" }, 1000);
      throw new Error("rolled back");
    });
  expect(change).toThrow("rolled back");
  expect(rows()).toEqual([]);
});
