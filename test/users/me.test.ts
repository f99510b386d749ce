import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { eq } from "drizzle-orm";
import { inTransaction } from "../../src/db/open.ts";
import { clusters, environments, signInFailures, templates, users } from "../../src/db/schema.ts";
import { removeDeletedUsers } from "../../src/users/deletion.ts";
import { type Accounts, openAccounts, PASSWORD } from "../auth/setup.ts";
import { clusterRow, environmentRow, templateRow } from "../rows.ts";

let accounts: Accounts;
let alice: { id: string; token: string };
beforeEach(async () => {
  accounts = openAccounts();
  alice = await signedIn("alice");
});
afterEach(() => accounts.close());

async function signedIn(name: string) {
  await accounts.register(name);
  const { body } = await accounts.signIn(name);
  return { id: body.user.id as string, token: body.access_token as string };
}

const me = (method: string, body?: unknown, token = alice.token) =>
  accounts.call(method, "/api/v1/users/me", { body, token });
const row = (id = alice.id) => accounts.db.select().from(users).where(eq(users.id, id)).get();

describe("the profile", () => {
  test("is what auth/me shows", async () => {
    const auth = await accounts.call("GET", "/api/v1/auth/me", { token: alice.token });
    expect((await me("GET")).body).toEqual(auth.body);
  });

  test("changes what is named, and nothing else", async () => {
    const before = (await me("GET")).body;
    const changed = await me("PUT", { full_name: "Alice Liddell", avatar_url: "https://example.com/a.png" });
    expect(changed.status).toBe(200);
    expect(changed.body).toEqual({
      ...before,
      full_name: "Alice Liddell",
      avatar_url: "https://example.com/a.png",
      updated_at: expect.any(String),
    });
    expect((await me("PUT", { full_name: null })).body).toMatchObject({
      full_name: null,
      avatar_url: "https://example.com/a.png",
      email: "alice@example.com",
    });
    expect(
      (await me("PUT", { role: "admin", subscription_plan: "pro", is_verified: true })).body,
    ).toMatchObject({
      role: "user",
      subscription_plan: "free",
      is_verified: false,
    });
  });

  test("a new address is unverified, is sent a link, and the old one is told", async () => {
    accounts.db.update(users).set({ isVerified: true }).run();
    const changed = await me("PUT", { email: "liddell@example.com" });
    expect(changed.body).toMatchObject({ email: "liddell@example.com", is_verified: false });
    const [message] = accounts.mailTo("liddell@example.com");
    expect(accounts.mailTo("alice@example.com")[0]?.subject).toContain("was changed");
    const token = /token=([\w-]+)/.exec(message?.textBody ?? "")?.[1];
    await accounts.call("POST", "/api/v1/auth/verify-email", { body: { token } });
    expect(row()?.isVerified).toBe(true);
    expect((await accounts.signIn("liddell@example.com")).status).toBe(200);
  });

  test("a link to the old address verifies nothing after the change", async () => {
    const token = /token=([\w-]+)/.exec(accounts.mailTo("alice@example.com")[0]?.textBody ?? "")?.[1];
    await me("PUT", { email: "liddell@example.com" });
    expect((await accounts.call("POST", "/api/v1/auth/verify-email", { body: { token } })).status).toBe(400);
    expect(row()?.isVerified).toBe(false);
  });

  test("the same address in other letters stays verified and sends nothing", async () => {
    accounts.db.update(users).set({ isVerified: true }).run();
    const changed = await me("PUT", { email: "Alice@Example.com" });
    expect(changed.body).toMatchObject({ email: "Alice@Example.com", is_verified: true });
    expect(accounts.mailTo("Alice@Example.com")).toEqual([]);
  });

  test("an address that another has is 400, and nothing changes", async () => {
    await accounts.register("bob");
    const answer = await me("PUT", { email: "BOB@example.com", full_name: "Alice" });
    expect(answer.status).toBe(400);
    expect(answer.body.detail).toBe("Email already exists");
    expect(row()).toMatchObject({ email: "alice@example.com", fullName: null });
  });

  test.each([
    [{ email: "nonsense" }, "email"],
    [{ avatar_url: "javascript:alert(1)" }, "avatar_url"],
    [{ full_name: "a\u0007b" }, "full_name"],
    [{ full_name: "x".repeat(201) }, "full_name"],
  ])("%o is 422", async (body, field) => {
    const answer = await me("PUT", body);
    expect(answer.status).toBe(422);
    expect(answer.body.errors[0].field).toBe(field);
  });

  test("an address of a picture that is too long is told so", async () => {
    const answer = await me("PUT", { avatar_url: `https://example.com/${"x".repeat(2048)}` });
    const message = "Must be at most 2048 characters long";
    expect(answer.body.errors).toEqual([{ field: "avatar_url", message, code: "max_length" }]);
  });

  test("needs an access token", async () => {
    for (const method of ["GET", "PUT", "DELETE"]) {
      expect(
        (await accounts.call(method, "/api/v1/users/me", { body: method === "PUT" ? {} : undefined })).status,
      ).toBe(401);
    }
  });
});

describe("changing the password", () => {
  const change = (current_password: string, new_password: string) =>
    accounts.call("PUT", "/api/v1/users/me/password", {
      token: alice.token,
      body: { current_password, new_password },
    });
  const NEW = "another fine sentence";

  test("signs out everywhere and tells the owner", async () => {
    const elsewhere = await accounts.signIn("alice");
    expect((await change(PASSWORD, NEW)).body).toEqual({ message: "Password changed successfully" });
    expect((await me("GET")).status).toBe(401);
    expect((await me("GET", undefined, elsewhere.body.access_token)).status).toBe(401);
    const refresh = { body: { refresh_token: elsewhere.body.refresh_token } };
    expect((await accounts.call("POST", "/api/v1/auth/refresh", refresh)).status).toBe(401);
    expect(accounts.ended).toHaveLength(2);
    expect((await accounts.signIn("alice")).status).toBe(401);
    expect((await accounts.signIn("alice", NEW)).status).toBe(200);
    expect(accounts.mailTo("alice@example.com")[0]?.subject).toBe("Your password was changed");
  });

  test("a wrong current password is 400, ends nothing, and locks after five", async () => {
    for (let n = 0; n < 5; n++) {
      const answer = await change("wrong password", NEW);
      expect(answer.status).toBe(400);
      expect(answer.body.errors[0].field).toBe("current_password");
    }
    expect((await change(PASSWORD, NEW)).status).toBe(403);
    expect((await me("GET")).status).toBe(200);
    expect(accounts.ended).toEqual([]);
  });

  test("a weak new password is 422", async () => {
    const answer = await change(PASSWORD, "qwertyuiop");
    expect(answer.status).toBe(422);
    expect(answer.body.errors).toMatchObject([{ field: "new_password", code: "common_password" }]);
    expect((await accounts.signIn("alice")).status).toBe(200);
  });
});

describe("sessions", () => {
  const list = (token = alice.token) => accounts.call("GET", "/api/v1/users/me/sessions", { token });

  test("are listed newest first, with where they come from, and nobody else's", async () => {
    await signedIn("bob");
    await accounts.signIn("alice");
    const { status, body, headers } = await list();
    expect(status).toBe(200);
    expect(headers.get("x-total-count")).toBe("2");
    expect(body).toHaveLength(2);
    expect(body.map((session: { is_current: boolean }) => session.is_current)).toEqual([false, true]);
    expect(body[1]).toEqual({
      id: expect.stringMatching(/^[0-9a-f]{24}$/),
      created_at: expect.stringMatching(/Z$/),
      last_used_at: expect.stringMatching(/Z$/),
      expires_at: expect.stringMatching(/Z$/),
      ip_address: "203.0.113.7",
      user_agent: null,
      is_current: true,
    });
  });

  test("are gone from the list after seven idle days", async () => {
    accounts.advance(7 * 86_400_000);
    const { body } = await accounts.signIn("alice");
    expect((await list(body.access_token)).body).toHaveLength(1);
  });

  test("one can be revoked: its token ends at once, the others live", async () => {
    const elsewhere = await accounts.signIn("alice");
    const [other] = (await list()).body;
    const path = `/api/v1/users/me/sessions/${other.id}`;
    expect((await accounts.call("DELETE", path, { token: alice.token })).status).toBe(204);
    expect((await me("GET", undefined, elsewhere.body.access_token)).status).toBe(401);
    expect((await me("GET")).status).toBe(200);
    expect(accounts.ended).toEqual([other.id]);
    expect((await accounts.call("DELETE", path, { token: alice.token })).status).toBe(404);
  });

  test("another user's can't be revoked", async () => {
    const bob = await signedIn("bob");
    const [session] = (await list(bob.token)).body;
    for (const id of [session.id, "nonsense"]) {
      const answer = await accounts.call("DELETE", `/api/v1/users/me/sessions/${id}`, { token: alice.token });
      expect(answer.status).toBe(404);
    }
    expect((await me("GET", undefined, bob.token)).status).toBe(200);
  });
});

describe("deleting the account", () => {
  test("signs out, has the environments torn down and leaves nothing personal", async () => {
    await accounts.call("POST", "/api/v1/auth/forgot-password", { body: { email: "alice@example.com" } });
    await accounts.signIn("alice", "wrong password");
    // The letter to the old address is not sent either.
    await me("PUT", { email: "a.liddell@example.com" });
    const answer = await me("DELETE");
    expect(answer.status).toBe(200);
    expect(answer.body).toEqual({ message: "User account deleted successfully" });
    expect((await me("GET")).status).toBe(401);
    expect((await accounts.signIn("alice")).status).toBe(401);
    expect(accounts.torn).toEqual([alice.id]);
    expect(accounts.ended).toHaveLength(1);
    for (const table of ["users", "audit_log", "sessions", "action_tokens", "outbox", "refresh_tokens"]) {
      const text = JSON.stringify(accounts.sqlite.query(`SELECT * FROM ${table}`).all());
      // What was tried after the deletion names nobody, but comes from the same address.
      const before =
        table === "audit_log" ? JSON.stringify(accounts.auditRows().filter(({ userId }) => userId)) : text;
      for (const trace of ["alice", "Alice", "203.0.113.7"]) expect(before).not.toContain(trace);
    }
    expect(accounts.auditRows().filter(({ userId }) => userId === alice.id).length).toBeGreaterThan(3);
    expect(accounts.db.select().from(signInFailures).all()).toHaveLength(1);
  });

  test("frees the names", async () => {
    await me("DELETE");
    expect((await accounts.register("alice")).status).toBe(201);
  });

  test("does nothing when the environments can't be told", async () => {
    const failing = openAccounts();
    await failing.register("alice");
    const { body } = await failing.signIn("alice");
    failing.deletionFails(true);
    const answer = await failing.call("DELETE", "/api/v1/users/me", { token: body.access_token });
    expect(answer.status).toBe(500);
    expect((await failing.call("GET", "/api/v1/auth/me", { token: body.access_token })).status).toBe(200);
    expect(failing.ended).toEqual([]);
    failing.close();
  });

  test("of the last active administrator is refused", async () => {
    const root = await accounts.admin();
    expect((await me("DELETE", undefined, root)).status).toBe(409);
    await accounts.admin("second");
    expect((await me("DELETE", undefined, root)).status).toBe(200);
  });

  test("the row goes with the last environment, and not before", async () => {
    addEnvironment(alice.id);
    await me("DELETE");
    expect(removeDeletedUsers(accounts.db)).toBe(0);
    expect(row()?.username).toBe(`deleted-${alice.id}`);
    accounts.db.update(environments).set({ status: "terminated", tornDownAt: 1 }).run();
    expect(removeDeletedUsers(accounts.db)).toBe(1);
    expect(row()).toBeUndefined();
    expect(accounts.db.select().from(environments).all()).toEqual([]);
  });
});

function addEnvironment(userId: string): void {
  inTransaction(accounts.db, (tx) => {
    const [cluster, template] = [clusterRow(), templateRow()];
    tx.insert(clusters).values(cluster).run();
    tx.insert(templates).values(template).run();
    tx.insert(environments)
      .values(
        environmentRow({
          id: "e",
          userId,
          clusterId: cluster.id,
          templateId: template.id,
          name: "alices-secret",
          variables: { TOKEN: "secret" },
          desired: "terminated",
          status: "stopping",
        }),
      )
      .run();
  });
}
