import { Database } from "bun:sqlite";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { TestServer } from "../harness.ts";
import { type FuzzRequest, requests } from "./arbitraries.ts";
import { Coverage } from "./coverage.ts";
import { ApiDocument } from "./document.ts";
import { type Person, Site } from "./site.ts";

/** The run has guessed passwords, and the administrator must come in all the same. */
function liftLocks(dataDir: string): void {
  using database = new Database(join(dataDir, "devpocket.db"));
  database.run("PRAGMA busy_timeout = 5000");
  database.run("DELETE FROM sign_in_failures");
}

/** After these someone may be signed out, or gone. */
const ENDS_SESSIONS = new Set(["logout", "deleteAccount", "changePassword", "revokeSession", "updateUser"]);

/** It reads the whole audit log, which a fuzz run makes long. */
const HEAVY = "exportAudit";

export interface FuzzResult {
  requests: number;
  /** How often each status was answered. */
  statuses: Record<string, number>;
  /** Resident memory of the server in MiB, when a tenth of the requests were done and at the end. */
  memoryMiB: { early: number; end: number };
}

/**
 * Sends `runs` requests made from the OpenAPI document, valid and broken, to a real server process. Every
 * answer must be documented and fit its schema; a 5xx is none but a documented 503.
 *
 * @throws Error with the smallest request that goes wrong
 */
export async function fuzz({ runs, seed }: { runs: number; seed?: number }): Promise<FuzzResult> {
  const server = await TestServer.start({ environment: { LOG_LEVEL: "warn", TRUSTED_PROXIES: "1" } });
  const document = await ApiDocument.of(server.url);
  const site = new Site(server, document, new Coverage());
  const known = { environment_id: "", session_id: "", user_id: "", cluster_id: "local" };
  const people: { admin?: Person; user?: Person } = {};

  async function lives(person: Person | undefined): Promise<boolean> {
    if (!person) return false;
    return (await site.send(document.operation("GET /api/v1/auth/me"), { as: person })).status === 200;
  }

  /** Sees to it that there are an administrator and a user with an environment, whatever the run has ended. */
  async function renew(): Promise<void> {
    if (!people.admin || !(await lives(people.admin))) {
      liftLocks(server.dataDir);
      people.admin = await site.signIn("admin", TestServer.adminPassword);
    }
    if (await lives(people.user)) return;
    // The run may have taken away what an environment is made from.
    const params = { cluster_id: known.cluster_id, template_id: "shell" };
    const anew = { as: people.admin, params, body: { status: "active" }, status: 200 };
    await site.call("PUT /api/v1/clusters/{cluster_id}", anew);
    await site.call("PUT /api/v1/templates/{template_id}", anew);
    const user = await site.person();
    people.user = user;
    known.user_id = user.id;
    known.environment_id = await site.environment(user);
    const { body } = await site.call("GET /api/v1/users/me/sessions", { as: user, status: 200 });
    known.session_id = body[0].id;
  }

  const statuses: Record<string, number> = {};
  let done = 0;
  let early = 0;

  async function send({ operation: key, method, path, query, headers, body, isElsewhere }: FuzzRequest) {
    const operation = document.operation(key);
    // A property is shrunk long after it was made: tokens are put in now. The administrator stays.
    const isDeletion = method === "DELETE" && /^\/api\/v1\/users\/me\/?$/.test(path);
    const admin = isDeletion ? people.user : people.admin;
    const token = headers.Authorization?.replace("<admin>", admin?.token ?? "").replace(
      "<user>",
      people.user?.token ?? "",
    );
    const url =
      server.url + path.replace(/%3C(\w+)%3E/g, (_, name) => Reflect.get(known, name) ?? "x") + query;
    const abort = new AbortController();
    const response = await fetch(url, {
      method,
      redirect: "manual",
      signal: abort.signal,
      headers: { ...headers, ...(token && { Authorization: token }) },
      ...(body !== undefined && { body }),
    });
    const { status } = response;
    const type = response.headers.get("content-type") ?? "";
    const isStream = type.startsWith("text/event-stream");
    if (isStream) abort.abort();
    const text = isStream ? "" : await response.text();
    statuses[status] = (statuses[status] ?? 0) + 1;
    done++;
    if (done === Math.ceil(runs / 10)) early = memoryMiB(server.pid);
    const faults = isElsewhere
      ? faultsElsewhere(status, type, text)
      : document.faults(operation, { status, type, text });
    if (status >= 500 && !(status === 503 && "503" in operation.responses)) faults.push(`${status}: ${text}`);
    if (!response.headers.has("x-request-id")) faults.push("no X-Request-Id");
    if (faults.length > 0) throw new Error(faults.join("\n"));
    if (status < 300 && (isElsewhere || ENDS_SESSIONS.has(operation.operationId))) await renew();
  }

  /** What is answered where the document has no word for it: an error of the common shape, or nothing. */
  function faultsElsewhere(status: number, type: string, text: string): string[] {
    if (status < 400 || text === "" || !type.startsWith("application/json")) return [];
    const schema = document.schema(status === 429 ? "RateLimitError" : "Error");
    return document.misfits(status === 429 ? "RateLimitError" : "Error", schema, JSON.parse(text));
  }

  try {
    await renew();
    const operations = [...document.operations.values()];
    const light = operations.filter(({ operationId }) => operationId !== HEAVY);
    const heavy = operations.filter(({ operationId }) => operationId === HEAVY);
    const tokens = fc.constantFrom("<admin>", "<user>", "<user>");
    const ids = {
      environment_id: fc.constant("<environment_id>"),
      user_id: fc.constant("<user_id>"),
      session_id: fc.constant("<session_id>"),
      // Not the one that the run's own environments are made from.
      template_id: fc.constantFrom("python", "nodejs-18", "ubuntu", "go"),
      cluster_id: fc.constant("local"),
    };
    const request = fc.oneof(
      { weight: 300, arbitrary: requests(document, light, { tokens, known: ids }) },
      { weight: 1, arbitrary: requests(document, heavy, { tokens, known: ids }) },
    );
    const property = fc.asyncProperty(request, send);
    await fc.assert(property, {
      numRuns: runs,
      ...(seed !== undefined && { seed }),
      endOnFailure: runs > 5000,
    });
    if (/unexpected error/.test(server.output.text)) throw new Error(server.output.text.slice(-5000));
    return { requests: done, statuses, memoryMiB: { early, end: memoryMiB(server.pid) } };
  } finally {
    await server.stop();
  }
}

function memoryMiB(pid: number): number {
  const kib = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1];
  return Math.round(Number(kib) / 1024);
}
