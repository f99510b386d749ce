import { Database } from "bun:sqlite";
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { type TestClient, TestServer } from "../harness.ts";
import { until } from "../until.ts";

let server: TestServer;
let admin: TestClient;
beforeAll(async () => {
  server = await TestServer.start({ environment: { IDLE_STOP_STARTER: "1s" } });
  admin = await server.signedIn();
});
afterAll(async () => {
  expect(await server.stop()).toBe(0);
});

async function running(client: TestClient, name: string): Promise<string> {
  const environment = await client.environment({ name, template: "shell" });
  expect(environment.status).toBe("running");
  return String(environment.id);
}

async function userId(client: TestClient): Promise<string> {
  return String((await client.get("/api/v1/auth/me")).id);
}

/** Every row of every table that holds `text` somewhere. */
function rowsWith(text: string): string[] {
  const database = new Database(join(server.dataDir, "devpocket.db"), { readonly: true });
  try {
    const tables = database
      .query<{ name: string }, []>("select name from sqlite_schema where type = 'table'")
      .all();
    return tables.flatMap(({ name }) =>
      database
        .query<Record<string, unknown>, []>(`select * from "${name}"`)
        .all()
        .map((row) => `${name}: ${JSON.stringify(row)}`)
        .filter((row) => row.includes(text)),
    );
  } finally {
    database.close();
  }
}

describe("an owner", () => {
  test("who deletes the account leaves nothing behind, neither personal nor running", async () => {
    const client = await server.newUser("leaving");
    const id = await running(client, "leavings");
    const terminal = await client.terminal(id);
    await terminal.message("welcome", ({ session_id }) => typeof session_id === "string");
    const workspace = join(server.dataDir, "workspaces", id);
    expect(existsSync(workspace)).toBe(true);
    expect(await client.json("DELETE", "/api/v1/users/me", undefined, 200)).toEqual({
      message: "User account deleted successfully",
    });
    await terminal.closes();
    await client.get("/api/v1/auth/me", 401);
    const isGone = () => !existsSync(workspace) && rowsWith(id).every((row) => row.startsWith("audit_log"));
    await until(isGone, { timeoutMs: 20_000 });
    expect(rowsWith("leaving")).toEqual([]);
  });

  test("who is deactivated is signed out, sockets closed, and the environments stop", async () => {
    const client = await server.newUser("suspended");
    const id = await running(client, "work");
    const terminal = await client.terminal(id);
    await terminal.message("welcome", ({ session_id }) => typeof session_id === "string");
    const user = await userId(client);
    await admin.put(`/api/v1/users/${user}`, { is_active: false });
    await terminal.closes();
    await client.get("/api/v1/environments", 401);
    await admin.put(`/api/v1/users/${user}`, { is_active: true });
    const back = await server.signedIn("suspended", "suspended's long password");
    const stopped = async () => {
      const environment = await back.get(`/api/v1/environments/${id}`);
      return environment.status === "stopped" && environment;
    };
    await until(stopped, { timeoutMs: 20_000 });
    const actions = (await admin.list(`/api/v1/audit?target=${id}`)).map(({ action }) => action);
    expect(actions).toEqual(["environment.suspend", "environment.create"]);
  });

  test("who does not use an environment finds it stopped, with the reason in object, log and audit", async () => {
    const client = await server.newUser("idle");
    await admin.put(`/api/v1/users/${await userId(client)}`, { subscription_plan: "starter" });
    const id = await running(client, "unused");
    const environment = await until(
      async () => {
        const now = await client.get(`/api/v1/environments/${id}`);
        return now.status === "stopped" && now;
      },
      { timeoutMs: 20_000 },
    );
    expect(environment.status_message).toBe("Stopped after 1 second without activity");
    const { logs } = await client.get(`/api/v1/environments/${id}/logs`);
    const messages = JSON.stringify(logs);
    expect(messages).toContain("it will be stopped in 1 second");
    expect(messages).toContain("Stopped after 1 second without activity");
    const [entry] = await admin.list(`/api/v1/audit?target=${id}&action=environment.stop`);
    expect(entry).toMatchObject({ detail: { reason: "Stopped after 1 second without activity" } });
  });
});
