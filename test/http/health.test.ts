import { Database } from "bun:sqlite";
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdtempSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { databaseCheck } from "../../src/db/check.ts";
import { openDatabase } from "../../src/db/open.ts";
import { type HealthOptions, healthRoutes } from "../../src/http/health.ts";
import { serve } from "./server.ts";

const unhealthy: string[] = [];

function options(checks: HealthOptions["checks"] = {}): HealthOptions {
  return {
    about: { version: "1.2.3", environment: "staging" },
    checks,
    info: {
      features: { googleOauth: false, rateLimiting: true, metrics: false, mail: false, registration: true },
      environmentsPerPlan: { free: 1, starter: 3, pro: 10 },
      localRuntime: () => ({ enabled: true, sandbox: "bubblewrap" }),
    },
    now: () => 1_722_729_600_500,
    onUnhealthy: (check, error) => unhealthy.push(`${check}: ${error}`),
  };
}

async function get(path: string, checks?: HealthOptions["checks"]) {
  await using server = serve({ routers: [healthRoutes(options(checks))] });
  const response = await fetch(server.url + path);
  return { status: response.status, body: await response.json() };
}

test("the server says that it answers", async () => {
  expect(await get("/health")).toEqual({
    status: 200,
    body: {
      status: "healthy",
      service: "DevPocket API",
      version: "1.2.3",
      environment: "staging",
      timestamp: 1_722_729_600.5,
    },
  });
  expect(await get("/health/live/")).toEqual({ status: 200, body: { status: "alive" } });
});

test("the server says what it offers", async () => {
  expect((await get("/api/v1/info")).body).toEqual({
    name: "DevPocket API",
    version: "1.2.3",
    environment: "staging",
    features: {
      authentication: true,
      google_oauth: false,
      websockets: true,
      rate_limiting: true,
      metrics: false,
      email: false,
      registration: true,
    },
    limits: { free_environments: 1, starter_environments: 3, pro_environments: 10 },
    local_runtime: { enabled: true, sandbox: "bubblewrap" },
  });
});

describe("readiness", () => {
  let folder: string;
  let file: string;
  let open: ReturnType<typeof openDatabase>;
  let check: () => void;

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "devpocket-health-"));
    file = join(folder, "devpocket.db");
    open = openDatabase(file);
    check = databaseCheck(open.sqlite);
    unhealthy.length = 0;
  });
  afterEach(() => {
    open.sqlite.close();
    rmSync(folder, { recursive: true });
  });

  const ready = () => get("/health/ready", { database: check });

  async function expectNotReady() {
    const { status, body } = await ready();
    expect(status).toBe(503);
    expect(body).toMatchObject({
      detail: "Not ready",
      errors: [{ field: "database", message: "The database is not available", code: "unhealthy" }],
      path: "/health/ready",
    });
    expect(unhealthy).toHaveLength(1);
    expect(JSON.stringify(body)).not.toContain(folder);
  }

  test("is there with a database", async () => {
    expect(await ready()).toEqual({
      status: 200,
      body: { status: "ready", checks: { database: "healthy" } },
    });
  });

  test("is there while another process writes", async () => {
    using other = new Database(file);
    other.run("BEGIN IMMEDIATE");
    expect((await ready()).status).toBe(200);
    other.run("ROLLBACK");
  });

  test("is asked for often, and writes seldom", async () => {
    const written = () => statSync(`${file}-wal`, { throwIfNoEntry: false })?.size ?? 0;
    const before = written();
    expect((await ready()).status).toBe(200);
    const once = written();
    expect(once).toBeGreaterThan(before);
    expect((await ready()).status).toBe(200);
    expect(written()).toBe(once);
  });

  test("ends when the database is closed", async () => {
    open.sqlite.close();
    await expectNotReady();
  });

  test("ends when the file is gone", async () => {
    renameSync(file, `${file}.moved`);
    await expectNotReady();
  });

  test("ends when the file is something else", async () => {
    rmSync(file);
    writeFileSync(
      file,
      "not a database, but long enough to have a header, which is a hundred bytes ".repeat(9),
    );
    await expectNotReady();
  });

  test("ends when a check throws anything", async () => {
    const { status } = await get("/health/ready", {
      database: () => {},
      scheduler: () => {
        throw "stopped";
      },
    });
    expect(status).toBe(503);
    expect(unhealthy).toEqual(["scheduler: stopped"]);
  });
});
