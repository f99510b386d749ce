import { Database } from "bun:sqlite";
import { expect } from "bun:test";
import { rmSync } from "node:fs";
import type { Operation, Parameter } from "../document.ts";
import type { Table } from "../row.ts";
import { anyNumber, anyText, anyTime, type Call, type Person, type Site } from "../site.ts";
import { APP_ORIGIN, adminOf, METRICS_TOKEN, PUBLIC_URL } from "../world.ts";

const LIST = "GET /api/v1/environments";

/** Calls every operation that `which` chooses, one after the other, each as `call` says. */
async function each(
  site: Site,
  which: (operation: Operation) => boolean,
  call: (operation: Operation) => Call,
): Promise<void> {
  const chosen = [...site.document.operations.values()].filter(which);
  expect(chosen).not.toEqual([]);
  for (const operation of chosen) await site.call(operation.key, call(operation));
}

/** What an error must have, whatever it is about. */
const ERROR = { detail: anyText, errors: expect.any(Array), timestamp: anyTime, path: anyText };

function isForm({ requestBody }: Operation): boolean {
  return requestBody?.content?.["application/x-www-form-urlencoded"] !== undefined;
}

const inApi = ({ path }: Operation) => path.startsWith("/api/v1/");

const isBounded = ({ in: where, schema }: Parameter) =>
  where === "query" && (schema.enum !== undefined || schema.type === "integer");

const CREDENTIALS = [
  "register",
  "login",
  "google",
  "verify-email",
  "resend-verification",
  "forgot-password",
  "reset-password",
].map((name) => `POST /api/v1/auth/${name}`);
const isCredential = ({ key }: Operation) => CREDENTIALS.includes(key);
const isFormOfALink = (operation: Operation) => isForm(operation) && !inApi(operation);

export const HEALTH: Table = [
  [
    "R 50, E 18",
    "health says which service of which version in which environment answers, and when",
    ({ main }) =>
      main.call("GET /health", {
        status: 200,
        answer: {
          status: "healthy",
          service: "DevPocket API",
          version: "1.0.0",
          environment: "contract",
          timestamp: anyNumber,
        },
      }),
  ],
  [
    "D times",
    "only the timestamp of health is a float of epoch seconds",
    async ({ main }) => {
      const { body } = await main.call("GET /health", { status: 200 });
      expect(Math.abs(body.timestamp - Date.now() / 1000)).toBeLessThan(60);
    },
  ],
  [
    "R 59, E 23",
    "ready reads and writes the database",
    async ({ main }) => {
      const { body } = await main.call("GET /health/ready", {
        status: 200,
        answer: { status: "ready", checks: { database: "healthy" } },
      });
      expect(body).toEqual({ status: "ready", checks: { database: "healthy" } });
    },
  ],
  [
    "R 73, E 28",
    "live is answered while the process lives",
    ({ main }) => main.call("GET /health/live", { status: 200, answer: { status: "alive" } }),
  ],
  [
    "R 84, E 33",
    "info names the API, what it offers and the plans' limits",
    ({ main }) =>
      main.call("GET /api/v1/info", {
        status: 200,
        answer: {
          name: "DevPocket API",
          version: "1.0.0",
          environment: "contract",
          features: {
            authentication: true,
            google_oauth: false,
            websockets: true,
            rate_limiting: false,
            metrics: true,
            email: false,
            registration: true,
          },
          limits: { free_environments: 1, starter_environments: 3, pro_environments: 10 },
          local_runtime: { enabled: true, sandbox: expect.stringMatching(/^(bubblewrap|none)$/) },
        },
      }),
  ],
  [
    "R 94, D rule 4",
    "a feature is claimed only where it is configured",
    async ({ mailing, limited }) => {
      const features = { google_oauth: true, metrics: false, email: true };
      await mailing.call("GET /api/v1/info", { status: 200, answer: { features } });
      await limited.call("GET /api/v1/info", {
        status: 200,
        answer: { features: { rate_limiting: true, registration: false }, local_runtime: { enabled: false } },
      });
    },
  ],
];

export const COMMON: Table = [
  [
    "R 11",
    "the OpenAPI document is 3.1.0 and the API's version 1.0.0",
    ({ document }) =>
      Promise.resolve(
        expect(document.document).toMatchObject({ openapi: "3.1.0", info: { version: "1.0.0" } }),
      ),
  ],
  [
    "D ids",
    "ids are 24 lower-case hex digits; a malformed one is answered like an unknown one: 404",
    async ({ main, admin }) => {
      const ids = ["nosuch", "%00", "0".repeat(24), "../x", "F".repeat(24), "ü", "x".repeat(500)];
      for (const id of ids) {
        await main.call("GET /api/v1/environments/{environment_id}", {
          as: admin,
          params: { environment_id: id },
          status: 404,
          answer: { detail: "Environment not found", errors: [] },
        });
      }
    },
  ],
  [
    "D paths",
    "every path answers with and without a trailing slash, without a redirect",
    async ({ main, document }) => {
      for (const path of new Set([...document.operations.values()].map(({ path }) => path))) {
        const url = `${main.url}${path.replace(/\{\w+\}/g, "x")}`;
        const [plain, slashed] = await Promise.all(
          [url, `${url}/`].map((one) => fetch(one, { method: "OPTIONS", redirect: "manual" })),
        );
        expect([path, plain?.status, slashed?.status]).toEqual([path, 204, 204]);
        expect(slashed?.headers.get("allow")).toBe(plain?.headers.get("allow") ?? "");
      }
    },
  ],
  [
    "D errors, R 1264",
    "an unknown path is 404, a method that a path does not have 405 with Allow; OPTIONS names those it has",
    async ({ main, document }) => {
      const unknown = await fetch(`${main.url}/api/v1/nothing`);
      expect([unknown.status, await unknown.json()]).toMatchObject([404, { path: "/api/v1/nothing" }]);
      const methods = new Map<string, string[]>();
      for (const { path, method } of document.operations.values()) {
        methods.set(path, [...(methods.get(path) ?? []), ...(method === "GET" ? ["GET", "HEAD"] : [method])]);
      }
      const template = document.schema("Error");
      for (const [path, documented] of methods) {
        const url = `${main.url}${path.replace(/\{\w+\}/g, "x")}`;
        const options = await fetch(url, { method: "OPTIONS" });
        const allowed = options.headers.get("allow")?.split(", ") ?? [];
        // "x" is also what the id in a path stands for: /templates/initialize is a template's path too.
        expect([path, allowed]).toEqual([path, expect.arrayContaining([...documented, "OPTIONS"])]);
        const refused = await fetch(url, { method: "PATCH" });
        expect([path, refused.status]).toEqual([path, 405]);
        expect(refused.headers.get("allow")).toBe(allowed.join(", "));
        expect(document.misfits("Error", template, await refused.json())).toEqual([]);
      }
    },
  ],
  [
    "R 2170, E 417, D errors",
    "every error has one shape: detail, errors with field, message and code, timestamp, path",
    ({ main }) =>
      main.call("POST /api/v1/auth/login", {
        body: { username: 1 },
        status: 422,
        answer: {
          detail: "Request validation failed",
          errors: [
            { field: "username", message: "Must be a text", code: "invalid_type" },
            { field: "password", message: "This field is required", code: "required" },
          ],
          timestamp: anyTime,
          path: "/api/v1/auth/login",
        },
      }),
  ],
  [
    "R 2206, R 1261, E 10, E 430, D missing or bad token",
    "every route that needs a token is 401 without one and with one that is none, and asks for a Bearer",
    ({ main }) =>
      each(
        main,
        ({ needsToken }) => needsToken,
        () => ({ status: 401, answer: { ...ERROR, errors: [] }, as: Math.random() < 0.5 ? "" : "x.y.z" }),
      ),
  ],
  [
    "R 2195",
    "401 says WWW-Authenticate: Bearer",
    async ({ main }) => {
      const { headers } = await main.call(LIST, { status: 401 });
      expect(headers.get("www-authenticate")).toBe("Bearer");
    },
  ],
  [
    "R 1262, R 2196, E 431",
    "every route for administrators is 403 for others",
    ({ main, bob }) =>
      each(
        main,
        ({ responses, path }) => "403" in responses && !/\/(auth|environments|me)\b/.test(path),
        () => ({ as: bob, status: 403, answer: { ...ERROR, errors: [] } }),
      ),
  ],
  [
    "R 1266, R 2199, E 433, D validation",
    "a body that is not JSON is 422 with the code invalid_json",
    async ({ main, admin }) => {
      const raw = { text: '{"name": ', type: "application/json" };
      await each(
        main,
        ({ body }) => body !== undefined,
        () => ({
          as: admin,
          raw,
          status: 422,
          answer: { ...ERROR, errors: [{ field: "body", message: anyText, code: "invalid_json" }] },
        }),
      );
    },
  ],
  [
    "D validation",
    "a query value outside its enum or range is 422",
    ({ main, admin }) =>
      each(
        main,
        ({ responses, parameters }) => "422" in responses && parameters.some(isBounded),
        ({ parameters }) => ({
          as: admin,
          query: Object.fromEntries(parameters.filter(isBounded).map(({ name }) => [name, "-1"])),
          status: 422,
          answer: ERROR,
        }),
      ),
  ],
  [
    "D body size",
    "a body of more than 1 MiB is 413",
    ({ main, admin }) =>
      each(
        main,
        ({ requestBody }) => requestBody !== undefined,
        (operation) => ({
          as: admin,
          raw: {
            text: "x".repeat(1024 * 1024 + 1),
            type: isForm(operation) ? "application/x-www-form-urlencoded" : "application/json",
          },
          status: 413,
          answer: ERROR,
        }),
      ),
  ],
  [
    "D errors",
    "a body of another type is 415",
    ({ main, admin }) =>
      each(
        main,
        ({ requestBody }) => requestBody !== undefined,
        () => ({ as: admin, raw: { text: "a: 1", type: "application/yaml" }, status: 415, answer: ERROR }),
      ),
  ],
  [
    "D errors",
    "a form without a body is as one without a token: 400",
    async ({ main }) => {
      await main.call("POST /verify-email", { status: 400 });
      await main.call("POST /reset-password", { status: 400 });
    },
  ],
  [
    "D errors",
    "a form that can't be read is 422",
    ({ main }) =>
      each(main, isFormOfALink, () => ({
        raw: { text: "--x", type: "multipart/form-data" },
        status: 422,
        answer: ERROR,
      })),
  ],
  [
    "D validation, rule 1",
    "unknown fields are ignored",
    async ({ main, ada }) => {
      const body = { username: ada.username, password: ada.password, remember_me: true };
      await main.call("POST /api/v1/auth/login", { body, status: 200 });
    },
  ],
  [
    "D someone else's thing",
    "what is someone else's is 404, for administrators too",
    ({ main, bob, admin, adas }) =>
      each(
        main,
        ({ path, isSocket }) => path.includes("{environment_id}") && !isSocket,
        ({ body, key }) => ({
          as: key.length % 2 ? bob : admin,
          params: { environment_id: adas },
          ...(body && { body: {} }),
          status: 404,
          answer: { ...ERROR, detail: "Environment not found" },
        }),
      ),
  ],
  [
    "D lists, R 1446",
    "every list has limit and offset, X-Total-Count and Link",
    async ({ main, admin, ada, adas }) => {
      const lists = [...main.document.operations.values()].filter(({ responses }) => {
        const schema = responses["200"]?.content?.["application/json"]?.schema;
        return schema?.type === "array";
      });
      expect(lists.length).toBeGreaterThan(6);
      for (const { key, path } of lists) {
        const call = { as: path.includes("{") ? ada : admin, params: { environment_id: adas } };
        const all = await main.call(key, { ...call, status: 200 });
        expect([key, all.headers.get("x-total-count")]).toEqual([key, expect.stringMatching(/^\d+$/)]);
        const page = { limit: "1", offset: "0" };
        const { body, headers } = await main.call(key, { ...call, query: page, status: 200 });
        expect(body.length).toBeLessThanOrEqual(1);
        expect(headers.get("link")).toContain('rel="first"');
        const beyond = await main.call(key, { ...call, query: { offset: "999" }, status: 200 });
        expect(beyond.body).toEqual([]);
        for (const query of [{ limit: "0" }, { limit: "201" }, { offset: "-1" }, { limit: "1e1" }]) {
          await main.call(key, { ...call, query, status: 422 });
        }
      }
    },
  ],
  [
    "R 1284",
    "every answer has the security headers, HSTS only over HTTPS",
    async ({ main }) => {
      const headersOf = async (proto: string) =>
        (await main.call("GET /health", { headers: { "X-Forwarded-Proto": proto }, status: 200 })).headers;
      const plain = await headersOf("http");
      expect(plain.get("x-content-type-options")).toBe("nosniff");
      expect(plain.get("x-frame-options")).toBe("DENY");
      expect(plain.get("x-xss-protection")).toBe("1; mode=block");
      expect(plain.get("strict-transport-security")).toBeNull();
      const secure = await headersOf("https");
      expect(secure.get("strict-transport-security")).toBe("max-age=31536000; includeSubDomains");
    },
  ],
  [
    "R 2297, D security headers",
    "HTTP is redirected to HTTPS where the public address is https, but for health",
    async ({ mailing }) => {
      const over = (path: string, proto: string) =>
        fetch(mailing.url + path, { redirect: "manual", headers: { "X-Forwarded-Proto": proto } });
      const redirect = await over("/api/v1/info?x=1", "http");
      expect([redirect.status, redirect.headers.get("location")]).toEqual([
        308,
        `${PUBLIC_URL}/api/v1/info?x=1`,
      ]);
      expect((await over("/api/v1/info", "https")).status).toBe(200);
      expect((await over("/health/ready", "http")).status).toBe(200);
    },
  ],
  [
    "R 2302, D CORS",
    "a listed origin may call with credentials, others not; without a list there is no CORS",
    async ({ main, limited }) => {
      const preflight = (site: Site, origin: string) =>
        fetch(`${site.url}/api/v1/environments`, {
          method: "OPTIONS",
          headers: { Origin: origin, "Access-Control-Request-Method": "POST" },
        });
      const known = await preflight(main, APP_ORIGIN);
      expect(known.status).toBe(204);
      expect(known.headers.get("access-control-allow-origin")).toBe(APP_ORIGIN);
      expect(known.headers.get("access-control-allow-credentials")).toBe("true");
      expect(known.headers.get("access-control-allow-headers")).toContain("Authorization");
      for (const [site, origin] of [
        [main, "https://evil.example.org"],
        [limited, APP_ORIGIN],
      ] as const) {
        expect((await preflight(site, origin)).headers.get("access-control-allow-origin")).toBeNull();
      }
    },
  ],
  [
    "D errors",
    "every answer has an X-Request-Id, the request's own where it brings one",
    async ({ main }) => {
      const { headers } = await main.call("GET /health", {
        headers: { "X-Request-Id": "mine-1" },
        status: 200,
      });
      expect(headers.get("x-request-id")).toBe("mine-1");
    },
  ],
  [
    "R 99",
    "metrics are for who has their token",
    async ({ main, limited }) => {
      const scrape = (site: Site, token: string) =>
        fetch(`${site.url}/metrics`, { headers: { Authorization: `Bearer ${token}` } });
      const metrics = await scrape(main, METRICS_TOKEN);
      expect([metrics.status, await metrics.text()]).toEqual([200, expect.stringContaining("devpocket_")]);
      expect((await scrape(main, "another")).status).toBe(401);
      expect((await scrape(limited, METRICS_TOKEN)).status).toBe(404);
    },
  ],
];

function limitOf(headers: Headers) {
  const read = (name: string) => Number(headers.get(`x-ratelimit-${name}`));
  return { limit: read("limit"), remaining: read("remaining"), reset: read("reset") };
}

/** These use up the limits of one server, so they come in this order and last. */
export const RATE_LIMITS: Table = [
  [
    "R 1273, R 1279, R 2266, E 438, D rate limits",
    "a user has 100 requests a minute, and every answer of the API says how many are left and until when",
    async ({ limited }) => {
      const admin = await adminOf(limited);
      const { headers } = await limited.call(LIST, { as: admin, status: 200 });
      const first = limitOf(headers);
      expect(first.limit).toBe(100);
      expect(first.reset).toBeWithin(Date.now() / 1000 - 1, Date.now() / 1000 + 61);
      const second = await limited.call(LIST, { as: admin, status: 200 });
      expect(limitOf(second.headers).remaining).toBe(first.remaining - 1);
      const refused = await limited.call(LIST, { status: 401 });
      expect(limitOf(refused.headers).limit).toBe(100);
    },
  ],
  [
    "R 1274, R 2268",
    "credential endpoints share 5 requests a minute",
    async ({ limited }) => {
      const call = { body: { username: "nobody", password: "wrong" }, status: 401 };
      const { headers } = await limited.call("POST /api/v1/auth/login", call);
      expect(limitOf(headers)).toMatchObject({ limit: 5 });
    },
  ],
  [
    "R 1267, R 2279, E 434, D rate limits",
    "over the limit everything is 429 with retry_after, path and Retry-After, and nothing else is done",
    async ({ limited }) => {
      const asked = limited.document.operation("POST /api/v1/auth/forgot-password");
      while ((await limited.send(asked, { body: { email: "a@example.org" } })).status !== 429);
      const exceeded = {
        detail: "Rate limit exceeded. Try again later.",
        errors: [],
        timestamp: anyTime,
        retry_after: anyNumber,
        path: anyText,
      };
      await each(
        limited,
        (operation) => isCredential(operation) || isFormOfALink(operation),
        () => ({ status: 429, answer: exceeded }),
      );
      const info = limited.document.operation("GET /api/v1/info");
      while ((await limited.send(info, {})).status !== 429);
      await each(
        limited,
        (operation) => inApi(operation) && !isCredential(operation),
        () => ({ status: 429, answer: exceeded }),
      );
      const { headers, body } = await limited.call("GET /api/v1/info", { status: 429 });
      expect(headers.get("retry-after")).toBe(String(body.retry_after));
      expect(limitOf(headers).remaining).toBe(0);
    },
  ],
  ["D rate limits", "health is not limited", ({ limited }) => limited.call("GET /health", { status: 200 })],
];

/** What is answered without looking into the database. */
export const NEEDS_NO_DATABASE: ReadonlySet<string> = new Set([
  "GET /health",
  "GET /health/ready",
  "GET /health/live",
  "GET /api/v1/info",
  "GET /verify-email",
  "GET /reset-password",
  // Not before Google has said who it is; without Google configured never.
  "POST /api/v1/auth/google",
  "GET /api/v1/auth/google/login",
  "GET /api/v1/auth/google/callback",
  // Who is there is asked after the upgrade.
  "GET /api/v1/ws/terminal/{environment_id}",
  "GET /api/v1/ws/logs/{environment_id}",
]);

/** What no request to a healthy server can bring about. The last of all: its database is lost. */
export const LOST_DATABASE: Table = [
  [
    "R 152, R 1268, R 2201, E 435, D errors",
    "an unexpected error is 500 with a fixed text and the common shape, and no word of what it was",
    async ({ broken }) => {
      const admin = await adminOf(broken);
      dropTables(`${broken.server.dataDir}/devpocket.db`);
      const calls = callsThatLook(admin);
      await each(
        broken,
        ({ key }) => !NEEDS_NO_DATABASE.has(key),
        ({ key }) => ({
          as: admin,
          ...calls[key],
          status: 500,
          answer: { ...ERROR, detail: "Internal server error", errors: [] },
        }),
      );
    },
  ],
  [
    "R 59, R 1269, R 2202, E 436",
    "a server whose database is lost is not ready: 503, saying what is missing; it lives",
    async ({ broken }) => {
      rmSync(`${broken.server.dataDir}/devpocket.db`);
      await broken.call("GET /health/ready", {
        status: 503,
        answer: { ...ERROR, errors: [{ field: "database", message: anyText, code: "unhealthy" }] },
      });
      await broken.call("GET /health/live", { status: 200 });
    },
  ],
];

/** Requests that get as far as the database without a token of their own being looked at. */
function callsThatLook(admin: Person): Partial<Record<string, Partial<Call>>> {
  const token = "x".repeat(43);
  const new_password = "a long new password";
  const form = (fields: Record<string, string>) => ({
    raw: { text: String(new URLSearchParams(fields)), type: "application/x-www-form-urlencoded" },
  });
  return {
    "POST /api/v1/auth/register": {
      body: { username: "someone", email: "someone@example.org", password: "a long password" },
    },
    "POST /api/v1/auth/login": { body: { username: "someone", password: "a long password" } },
    "POST /api/v1/auth/refresh": { body: { refresh_token: admin.refreshToken } },
    "POST /api/v1/auth/verify-email": { body: { token } },
    "POST /api/v1/auth/forgot-password": { body: { email: "someone@example.org" } },
    "POST /api/v1/auth/reset-password": { body: { token, new_password } },
    "POST /verify-email": form({ token }),
    "POST /reset-password": form({ token, new_password }),
  };
}

function dropTables(file: string): void {
  using database = new Database(file);
  database.run("PRAGMA busy_timeout = 5000");
  database.run("PRAGMA foreign_keys = OFF");
  const tables = database.query<{ name: string }, []>(
    "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'",
  );
  for (const { name } of tables.all()) database.run(`DROP TABLE "${name}"`);
}
