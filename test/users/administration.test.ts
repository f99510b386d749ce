import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { eq } from "drizzle-orm";
import { users } from "../../src/db/schema.ts";
import { type Accounts, openAccounts, PASSWORD } from "../auth/setup.ts";

let accounts: Accounts;
let root: string;
let alice: { id: string; token: string };
beforeEach(async () => {
  accounts = openAccounts();
  root = await accounts.admin();
  await accounts.register("alice");
  const { body } = await accounts.signIn("alice");
  alice = { id: body.user.id, token: body.access_token };
});
afterEach(() => accounts.close());

const put = (id: string, body: unknown, token = root) =>
  accounts.call("PUT", `/api/v1/users/${id}`, { body, token });
const row = (id: string) => accounts.db.select().from(users).where(eq(users.id, id)).get();
const rootId = () => accounts.db.select().from(users).where(eq(users.username, "root")).get()?.id ?? "";

describe("the list", () => {
  test("has everyone who is not deleted, newest first, a page at a time", async () => {
    await accounts.register("bob");
    await accounts.call("DELETE", "/api/v1/users/me", { token: alice.token });
    const whole = await accounts.call("GET", "/api/v1/users", { token: root });
    expect(whole.status).toBe(200);
    expect(whole.body.map(({ username }: { username: string }) => username)).toEqual(["bob", "root"]);
    expect(whole.headers.get("x-total-count")).toBe("2");
    const second = await accounts.call("GET", "/api/v1/users?limit=1&offset=1", { token: root });
    expect(second.body.map(({ username }: { username: string }) => username)).toEqual(["root"]);
    expect(second.headers.get("link")).toContain('rel="prev"');
    expect(second.headers.get("x-total-count")).toBe("2");
  });

  test.each(["limit=0", "limit=201", "limit=x", "offset=-1"])("%s is 422", async (query) => {
    expect((await accounts.call("GET", `/api/v1/users?${query}`, { token: root })).status).toBe(422);
  });
});

describe("who may", () => {
  test("only administrators; plans are no roles", async () => {
    accounts.db.update(users).set({ plan: "pro" }).where(eq(users.id, alice.id)).run();
    const paths: [string, string][] = [
      ["GET", "/api/v1/users"],
      ["PUT", `/api/v1/users/${rootId()}`],
      ["GET", "/api/v1/audit"],
      ["GET", "/api/v1/audit/export"],
    ];
    for (const [method, path] of paths) {
      const body = method === "PUT" ? { role: "user" } : undefined;
      expect((await accounts.call(method, path, { body })).status).toBe(401);
      const answer = await accounts.call(method, path, { body, token: alice.token });
      expect([path, answer.status]).toEqual([path, 403]);
    }
    expect(row(rootId())?.role).toBe("admin");
  });

  test("an administrator who was demoted a moment ago may not", async () => {
    const second = await accounts.admin("second");
    await put(rootId(), { role: "user" }, second);
    expect((await accounts.call("GET", "/api/v1/users", { token: root })).status).toBe(403);
  });
});

describe("changing a user", () => {
  test("sets plan and role, and audits what was before", async () => {
    const answer = await put(alice.id, { subscription_plan: "pro", role: "admin" });
    expect(answer.body).toMatchObject({
      id: alice.id,
      subscription_plan: "pro",
      role: "admin",
      is_active: true,
    });
    expect((await accounts.call("GET", "/api/v1/users", { token: alice.token })).status).toBe(200);
    expect(accounts.auditRows().at(-1)).toMatchObject({
      action: "user.administer",
      userId: rootId(),
      targetId: alice.id,
      detail: { subscription_plan: { from: "free", to: "pro" }, role: { from: "user", to: "admin" } },
    });
    expect(accounts.ended).toEqual([]);
  });

  test("deactivation signs out, stops environments and closes the door until it is undone", async () => {
    expect((await put(alice.id, { is_active: false })).body.is_active).toBe(false);
    expect((await accounts.call("GET", "/api/v1/auth/me", { token: alice.token })).status).toBe(401);
    expect(accounts.stopped).toEqual([alice.id]);
    expect(accounts.ended).toHaveLength(1);
    expect((await accounts.signIn("alice")).status).toBe(403);
    await put(alice.id, { is_active: false });
    expect(accounts.stopped).toEqual([alice.id]);
    await put(alice.id, { is_active: true });
    expect((await accounts.signIn("alice", PASSWORD)).status).toBe(200);
  });

  test.each([{ role: "user" }, { is_active: false }])(
    "%o is 409 for the last active administrator",
    async (change) => {
      expect((await put(rootId(), change)).status).toBe(409);
      expect(row(rootId())).toMatchObject({ role: "admin", isActive: true });
      await accounts.admin("second");
      expect((await put(rootId(), change)).status).toBe(200);
    },
  );

  test("an inactive administrator does not count", async () => {
    await put(alice.id, { role: "admin" });
    await put(alice.id, { is_active: false });
    expect((await put(rootId(), { role: "user" })).status).toBe(409);
  });

  test.each(["0".repeat(24), "nonsense"])("unknown: %s is 404", async (id) => {
    expect((await put(id, { role: "admin" })).status).toBe(404);
  });

  test("a deleted user is 404", async () => {
    await accounts.call("DELETE", "/api/v1/users/me", { token: alice.token });
    expect((await put(alice.id, { is_active: true })).status).toBe(404);
  });

  test.each([{ subscription_plan: "gold" }, { role: "root" }, { is_active: "yes" }])(
    "%o is 422",
    async (body) => {
      expect((await put(alice.id, body)).status).toBe(422);
      expect(row(alice.id)).toMatchObject({ plan: "free", role: "user", isActive: true });
    },
  );

  test("/users/me stays the caller's own", async () => {
    const answer = await accounts.call("PUT", "/api/v1/users/me", {
      token: root,
      body: { full_name: "Root" },
    });
    expect(answer.body).toMatchObject({ username: "root", full_name: "Root" });
  });
});
