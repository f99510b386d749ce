import { Database } from "bun:sqlite";
import { describe, expect, test } from "bun:test";
import { connect } from "node:net";
import { z } from "zod";
import { AppError } from "../../src/errors.ts";
import type { SocketHandlers } from "../../src/http/context.ts";
import { newRouter } from "../../src/http/router.ts";
import { until } from "../until.ts";
import { type Running, sendRaw, serve } from "./server.ts";

const ErrorShape = z.strictObject({
  detail: z.string(),
  errors: z.array(z.strictObject({ field: z.string(), message: z.string(), code: z.string() })),
  timestamp: z.iso.datetime(),
  path: z.string(),
  retry_after: z.int().optional(),
});

async function errorOf(response: Response) {
  expect(response.headers.get("content-type")).toBe("application/json");
  expect(response.headers.get("x-request-id")).toBeTruthy();
  return ErrorShape.parse(await response.json());
}

function post(
  server: Running,
  body: string | Uint8Array<ArrayBuffer> | null,
  type: string | null = "application/json",
) {
  return fetch(`${server.url}/api/v1/things`, {
    method: "POST",
    body,
    headers: type === null ? {} : { "Content-Type": type },
  });
}

describe("what no route takes", () => {
  test.each([
    ["GET", "/api/v1/nothing", 404, null],
    ["POST", "/api/v1/nothing", 404, null],
    ["OPTIONS", "/api/v1/nothing", 404, null],
    ["GET", "/api/v1/things", 405, "POST, PUT, OPTIONS"],
    ["PATCH", "/api/v1/things", 405, "POST, PUT, OPTIONS"],
    ["DELETE", "/api/v1/things/1", 405, "GET, HEAD, OPTIONS"],
    ["TRACE", "/health", 405, "GET, HEAD, OPTIONS"],
    ["GET", "/api/v1/things/%ff/%zz", 404, null],
    ["GET", "/api/v1/things/a/b", 404, null],
    ["GET", "//api//v1", 404, null],
    ["CONNECT", "elsewhere:443", 405, "GET, HEAD, OPTIONS"],
    ["CONNECT", "elsewhere:x", 405, "GET, HEAD, OPTIONS"],
    ["CONNECT", "http:80", 405, "GET, HEAD, OPTIONS"],
  ])("%s %s is %d", async (method, path, status, allow) => {
    await using server = serve();
    const answer = await sendRaw(server.port, [`${method} ${path} HTTP/1.1\r\nHost: here\r\n\r\n`]);
    expect(answer).toStartWith(`HTTP/1.1 ${status} `);
    expect(/^Allow: (.*)\r$/im.exec(answer)?.[1] ?? null).toBe(allow);
    const body = ErrorShape.parse(JSON.parse(answer.slice(answer.indexOf("\r\n\r\n"))));
    expect(body.errors).toEqual([]);
    expect(body.path).toStartWith("/");
  });

  test("OPTIONS says what a path allows", async () => {
    await using server = serve();
    const response = await fetch(`${server.url}/api/v1/things`, { method: "OPTIONS" });
    expect(response.status).toBe(204);
    expect(response.headers.get("allow")).toBe("POST, PUT, OPTIONS");
    expect(response.headers.get("access-control-allow-origin")).toBeNull();
  });

  test("a full disk is 503, and says so", async () => {
    const router = newRouter();
    router.post("/fills", (c) => {
      const database = new Database(":memory:");
      database.run("PRAGMA max_page_count = 2");
      database.run("CREATE TABLE t (x)");
      database.run("INSERT INTO t VALUES (zeroblob(100000))");
      return c.body(null, 204);
    });
    await using server = serve({ routers: [router] });
    const response = await fetch(`${server.url}/fills`, { method: "POST" });
    expect(response.status).toBe(503);
    expect(await errorOf(response)).toMatchObject({ detail: "The server's disk is full" });
  });

  test.each(["/broken", "/broken-otherwise"])(
    "an unexpected error (%s) is a 500 with a fixed text, and is logged under the request's id",
    async (path) => {
      await using server = serve();
      const headers = { "X-Request-Id": "one" };
      const response = await fetch(`${server.url}${path}?token=t0ken`, { headers });
      expect(response.status).toBe(500);
      const { timestamp, ...body } = await errorOf(response);
      expect(body).toEqual({ detail: "Internal server error", errors: [], path });
      const [error, request] = server.lines;
      expect(error).toMatchObject({ level: "error", request_id: "one", path });
      expect(error?.stack).toContain("hunter2");
      expect(request).toMatchObject({ message: "request", status: 500, request_id: "one" });
      expect(server.logged()).not.toContain("t0ken");
    },
  );
});

describe("paths", () => {
  test.each([
    "/api/v1/things/1",
    "/api/v1/things/1/",
    "/api/v1/things/1?deep=yes",
    "/api/v1/things/1/?deep=yes",
    "/api/v1/%74hings/1",
    "/api/v1/x/../things/1",
  ])("%s is the thing", async (path) => {
    await using server = serve();
    const answer = await sendRaw(server.port, [`GET ${path} HTTP/1.1\r\nHost: here\r\n\r\n`]);
    expect(answer).toStartWith("HTTP/1.1 200 ");
    expect(answer).toEndWith('{"id":"1"}');
  });

  test.each([
    ["%2e%2e%2fetc", "../etc"],
    ["%00", "\0"],
    ["%25", "%"],
    ["%252e", "%2e"],
    ["%E0%A4%A", "%E0%A4%A"],
    ["%zz", "%zz"],
    ["%ff", "%ff"],
    ["caf%C3%A9", "café"],
    ["a%3Fb", "a?b"],
    ["a%23b", "a#b"],
  ])("an id of %s reaches the route as %j", async (escaped, id) => {
    await using server = serve();
    const answer = await sendRaw(server.port, [
      `GET /api/v1/things/${escaped} HTTP/1.1\r\nHost: here\r\n\r\n`,
    ]);
    expect(answer).toStartWith("HTTP/1.1 200 ");
    expect(JSON.parse(answer.slice(answer.indexOf("\r\n\r\n")))).toEqual({ id });
  });

  test("HEAD has the headers of GET and no body", async () => {
    await using server = serve();
    const head = `HEAD /api/v1/things/1 HTTP/1.1\r\nHost: here\r\n\r\n`;
    const get = `GET /api/v1/things/2 HTTP/1.1\r\nHost: here\r\n\r\n`;
    const answer = await sendRaw(server.port, [head, get], (text) => text.endsWith('{"id":"2"}'));
    expect(answer.match(/HTTP\/1\.1 200 OK/g)).toHaveLength(2);
    expect(answer).not.toContain('{"id":"1"}');
    expect(server.lines.map(({ method }) => method)).toEqual(["HEAD", "GET"]);
  });

  test("HTTP/1.0 without a Host header is answered", async () => {
    await using server = serve();
    const answer = await sendRaw(server.port, ["GET /api/v1/things/1?deep=no HTTP/1.0\r\n\r\n"]);
    expect(answer).toStartWith("HTTP/1.1 200 OK");
    const wrong = await sendRaw(server.port, ["GET /api/v1/things/1?deep=maybe HTTP/1.0\r\n\r\n"]);
    expect(wrong).toStartWith("HTTP/1.1 422 ");
  });

  test.each(["[", "x:99999", "%", "a b", "a/b?c#d", "[::1", "\u00e9", "x:y", "@", ""])(
    "a Host header of %j is no fault of the server",
    async (host) => {
      for (const publicUrl of [undefined, new URL("https://pocket.example.org")]) {
        await using server = serve({ config: { publicUrl } });
        const answer = await sendRaw(
          server.port,
          [`GET /api/v1/pages?limit=5&deep=no HTTP/1.1\r\nHost: ${host}\r\n\r\n`],
          (text) => /\r\n\r\n/.test(text),
        );
        expect(answer).toMatch(/^HTTP\/1.1 (?:200|308|400|404) /);
        if (answer.startsWith("HTTP/1.1 308"))
          expect(answer).toContain("Location: https://pocket.example.org/");
      }
    },
  );

  test("requests on one connection that do not wait for each other are answered in order", async () => {
    await using server = serve();
    const body = '{"name":"abc"}';
    const requests = [
      `POST /api/v1/things HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
      "GET /api/v1/nothing HTTP/1.1\r\nHost: h\r\n\r\n",
      "GET /api/v1/things/9 HTTP/1.1\r\nHost: h\r\n\r\n",
    ];
    const answer = await sendRaw(server.port, [requests.join("")], (text) => text.endsWith('{"id":"9"}'));
    expect([...answer.matchAll(/HTTP\/1\.1 (\d+)/g)].map(([, status]) => status)).toEqual([
      "200",
      "404",
      "200",
    ]);
  });
});

describe("bodies", () => {
  test.each([
    ["nothing", null, "application/json"],
    ["nothing, and no type", null, null],
    ["an empty text", "", "application/json"],
    ["half of an object", '{"name":', "application/json"],
    ["a form", "name=abc", "application/json"],
    ["a raw NUL", '{"name":"a\0b"}', "application/json"],
    ["an escaped NUL", '{"name":"a\\u0000b"}', "application/json"],
    ["an escaped NUL in a name", '{"name":"ab","variables":{"A\\u0000":"b"}}', "application/json"],
    ["half of a surrogate pair", '{"name":"a\\ud800"}', "application/json"],
    ["invalid UTF-8", new Uint8Array([0x7b, 0x22, 0xff, 0x22, 0x7d]), "application/json"],
    ["brackets to the limit", "[".repeat(1024 * 1024), "application/json"],
    ["escapes in brackets to the limit", `${"[".repeat(1_000_000)}"\\u0061"`, "application/json"],
  ])("%s is no JSON", async (_, body, type) => {
    await using server = serve();
    const response = await post(server, body, type);
    expect(response.status).toBe(422);
    const { detail, errors } = await errorOf(response);
    expect(detail).toBe("Request validation failed");
    expect(errors).toHaveLength(1);
    expect(errors[0]).toMatchObject({ field: "body", code: "invalid_json" });
  });

  test.each([
    ["a text", '"abc"'],
    ["a number", "5"],
    ["null", "null"],
    ["a list", "[]"],
    ["deep nesting", `{"name":${"[".repeat(400_000)}${"]".repeat(400_000)}}`],
  ])("%s is JSON of the wrong type", async (_, body) => {
    await using server = serve();
    const response = await post(server, body);
    expect(response.status).toBe(422);
    const { errors } = await errorOf(response);
    expect(["invalid_type", "invalid_json"]).toContain(errors[0]?.code ?? "");
  });

  test.each([
    "text/plain",
    "application/x-www-form-urlencoded",
    "application/jsonp",
    "multipart/form-data",
    null,
  ])("of type %s is 415", async (type) => {
    await using server = serve();
    const body = new TextEncoder().encode('{"name":"abc"}');
    const response = await post(server, body, type);
    expect(response.status).toBe(415);
    expect((await errorOf(response)).detail).toBe("The body must be application/json");
  });

  test.each([
    "application/json",
    "Application/JSON; charset=utf-8",
    "application/json ;charset=UTF-8",
    "application/json;",
    "application/vnd.api+json",
  ])("of type %s is read", async (type) => {
    await using server = serve();
    const response = await post(server, '{"name":"abc","more":1}', type);
    expect(response.status).toBe(200);
    expect(await response.json()).toEqual({ name: "abc" });
  });

  test("an optional body may be absent or empty, not broken", async () => {
    await using server = serve();
    const put = (init: RequestInit) => fetch(`${server.url}/api/v1/things`, { method: "PUT", ...init });
    const type = { "Content-Type": "application/json" };
    expect(await (await put({})).json()).toEqual({});
    expect(await (await put({ headers: type })).json()).toEqual({});
    expect(await (await put({ headers: type, body: '{"name":"abc"}' })).json()).toEqual({ name: "abc" });
    expect((await put({ headers: type, body: "{" })).status).toBe(422);
    expect((await put({ headers: type, body: "null" })).status).toBe(422);
    expect((await put({ body: '{"name":"abc"}' })).status).toBe(415);
  });

  test("every field that is wrong is named with its fault", async () => {
    await using server = serve();
    const wrong = {
      kind: "c",
      email: "nobody",
      port: 0,
      tags: ["a", "b", "c"],
      variables: { lower: "x" },
      secret: "guess",
    };
    const response = await post(server, JSON.stringify(wrong));
    expect(response.status).toBe(422);
    const { errors } = await errorOf(response);
    expect(errors.toSorted((a, b) => a.field.localeCompare(b.field))).toEqual([
      { field: "email", message: "Invalid email format", code: "invalid_format" },
      { field: "kind", message: "Must be one of: a, b", code: "invalid_enum" },
      { field: "name", message: "This field is required", code: "required" },
      { field: "port", message: "Must be at least 1", code: "min_value" },
      { field: "secret", message: "Too easy", code: "weak_password" },
      { field: "tags", message: "Must have at most 2 entries", code: "max_items" },
      { field: "variables.lower", message: "Capitals only", code: "invalid_key" },
    ]);
  });

  test.each([
    ['{"name":5}', "Must be a text", "invalid_type"],
    ['{"name":null}', "Must be a text", "invalid_type"],
    ['{"name":"a"}', "Must be at least 2 characters long", "min_length"],
    ['{"name":"abcdef"}', "Must be at most 5 characters long", "max_length"],
    ['{"__proto__":{"name":"abc"}}', "This field is required", "required"],
  ])("%s: %s", async (body, message, code) => {
    await using server = serve();
    const { errors } = await errorOf(await post(server, body));
    expect(errors).toEqual([{ field: "name", message, code }]);
  });

  test("a hundred thousand faults are not all told", async () => {
    await using server = serve();
    const variables = Object.fromEntries(Array.from({ length: 50_000 }, (_, i) => [`x${i}`, "v"]));
    const response = await post(server, JSON.stringify({ name: "abc", variables }));
    expect((await errorOf(response)).errors).toHaveLength(50);
  });

  test("a query outside its enum is 422", async () => {
    await using server = serve();
    const response = await fetch(`${server.url}/api/v1/things/1?deep=maybe`);
    expect(response.status).toBe(422);
    expect((await errorOf(response)).errors).toEqual([
      { field: "deep", message: "Must be one of: yes, no", code: "invalid_enum" },
    ]);
  });
});

describe("large bodies", () => {
  test("of exactly 1 MiB are read, of one byte more are 413", async () => {
    await using server = serve();
    const fits = `{"name":"abc"${" ".repeat(1024 * 1024 - 14)}}`;
    expect((await post(server, fits)).status).toBe(200);
    const response = await post(server, `${fits} `);
    expect(response.status).toBe(413);
    await errorOf(response);
  });

  test("that only say they are large are refused before they are sent", async () => {
    await using server = serve();
    for (const path of ["/api/v1/things", "/api/v1/auth/login", "/api/v1/nothing"]) {
      const answer = await sendRaw(server.port, [
        `POST ${path} HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: 99999999999\r\n\r\n`,
      ]);
      expect(answer).toStartWith("HTTP/1.1 413 ");
      expect(answer).toContain('"detail":"The body is larger than 1 MiB"');
    }
  });

  test("without a declared length are read up to the limit and no further", async () => {
    await using server = serve();
    const head =
      "POST /api/v1/things HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    const chunk = `10000\r\n${" ".repeat(65536)}\r\n`;
    // Seventeen of them are over 1 MiB; the end of the body is never sent.
    const answer = await sendRaw(server.port, [head, chunk.repeat(17)]);
    expect(answer).toStartWith("HTTP/1.1 413 ");
    const small = await sendRaw(server.port, [head, "e\r\n", '{"name":"abc"}', "\r\n0\r\n\r\n"]);
    expect(small).toStartWith("HTTP/1.1 200 ");
    const empty = await sendRaw(server.port, [head, "0\r\n\r\n"]);
    expect(empty).toStartWith("HTTP/1.1 422 ");
  });

  test("of forms have the same limit", async () => {
    await using server = serve();
    const head = (type: string) =>
      `POST /form HTTP/1.1\r\nHost: h\r\nContent-Type: ${type}\r\nTransfer-Encoding: chunked\r\n\r\n`;
    const form = head("application/x-www-form-urlencoded");
    const chunk = `10000\r\n${"a".repeat(65536)}\r\n`;
    expect(await sendRaw(server.port, [form, chunk.repeat(17)])).toStartWith("HTTP/1.1 413 ");
    const small = await sendRaw(server.port, [form, "8\r\nname=abc\r\n0\r\n\r\n"]);
    expect(small).toStartWith("HTTP/1.1 200 ");
    expect(small).toEndWith('{"name":"abc"}');
    expect(await sendRaw(server.port, [head("text/plain"), "1\r\na\r\n0\r\n\r\n"])).toStartWith(
      "HTTP/1.1 415 ",
    );
    const broken = head("multipart/form-data; boundary=x");
    const answer = await sendRaw(server.port, [broken, "1\r\na\r\n0\r\n\r\n"]);
    expect(answer).toStartWith("HTTP/1.1 422 ");
    expect(answer).toContain("The form can't be read");
  });

  test.each(["Content-Length: 500", "Transfer-Encoding: chunked"])(
    "whose sender hangs up (%s) are no fault of the server",
    async (framing) => {
      await using server = serve();
      const socket = connect(server.port, "127.0.0.1");
      const head = `POST /api/v1/things HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n${framing}`;
      socket.write(`${head}\r\n\r\n5\r\nabcde\r\n`);
      await until(() => server.pending() === 1);
      socket.destroy();
      await until(() => server.lines.length > 0);
      expect(server.lines).toMatchObject([{ level: "info", message: "request", status: 400 }]);
    },
  );

  test("that come slowly are read", async () => {
    await using server = serve();
    const response = await fetch(`${server.url}/api/v1/things`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: (async function* () {
        for (const character of '{"name":"abc"}') {
          await Bun.sleep(1);
          yield new TextEncoder().encode(character);
        }
      })(),
    });
    expect(await response.json()).toEqual({ name: "abc" });
  });
});

test("until the server has started only its life is told; the rest is 503 and comes back", async () => {
  let isStarted = false;
  await using server = serve({ isStarted: () => isStarted });
  expect((await fetch(`${server.url}/health`)).status).toBe(200);
  const refused = await post(server, '{"name":"abc"}');
  expect([refused.status, refused.headers.get("retry-after")]).toEqual([503, "1"]);
  expect((await errorOf(refused)).detail).toBe("The server is starting");
  isStarted = true;
  expect((await post(server, '{"name":"abc"}')).status).toBe(200);
});

describe("request ids and the log", () => {
  test.each([
    ["abc-123", true],
    ["req:1/2+3=4.5_6", true],
    ["a".repeat(128), true],
    ["a".repeat(129), false],
    ["a b", false],
    ['"quoted"', false],
    ["<script>", false],
    ["", false],
  ])("an id of %j is kept: %p", async (offered, kept) => {
    await using server = serve();
    const response = await fetch(`${server.url}/health`, { headers: { "X-Request-Id": offered } });
    const id = response.headers.get("x-request-id") ?? "";
    if (kept) expect(id).toBe(offered);
    else expect(id).toMatch(/^[0-9a-f-]{36}$/);
    expect(server.lines).toHaveLength(1);
    expect(server.lines[0]).toMatchObject({ message: "request", request_id: id });
  });

  test("a line says what was asked and answered, and holds no secret", async () => {
    await using server = serve();
    await fetch(`${server.url}/api/v1/things?token=s3cret&x=1`, {
      method: "POST",
      headers: { Authorization: "Bearer s3cret", Cookie: "s3cret", "Content-Type": "application/json" },
      body: '{"password":"s3cret"}',
    });
    const [line] = server.lines;
    expect(line).toMatchObject({ method: "POST", path: "/api/v1/things", status: 422, level: "info" });
    expect(line?.ms).toBeNumber();
    expect(server.logged()).not.toContain("s3cret");
  });

  test("every answered request is told with its route's template", async () => {
    const seen: string[] = [];
    await using server = serve({
      onAnswered: ({ method, route, status, durationMs }) => {
        expect(durationMs).toBeGreaterThanOrEqual(0);
        seen.push(`${method} ${route} ${status}`);
      },
    });
    await fetch(`${server.url}/api/v1/things/1`);
    await fetch(`${server.url}/api/v1/things/2/?deep=maybe`);
    await fetch(`${server.url}/api/v1/nothing`);
    await fetch(`${server.url}/api/v1/things`, { method: "DELETE" });
    await fetch(`${server.url}/broken`);
    expect(seen).toEqual([
      "GET /api/v1/things/:id 200",
      "GET /api/v1/things/:id 422",
      "GET unmatched 404",
      "DELETE unmatched 405",
      "GET /broken 500",
    ]);
  });
});

test("a request to a WebSocket's path that is no upgrade is told what it must be", async () => {
  const router = newRouter();
  router.get("/api/v1/ws/logs/:id", () => {
    throw new AppError("upgrade_required", "A WebSocket upgrade is expected");
  });
  await using server = serve({ routers: [router] });
  const answer = await sendRaw(server.port, ["GET /api/v1/ws/logs/1 HTTP/1.1\r\nHost: h\r\n\r\n"]);
  expect(answer).toStartWith("HTTP/1.1 426 ");
  expect(answer).toMatch(/^upgrade: websocket\r$/im);
});

test("an upgrade carries the request's id and is logged as one", async () => {
  const router = newRouter();
  router.get("/api/v1/ws/logs/:id", (c) => {
    c.env.server.upgrade(c.req.raw, { data: nobody, headers: { "X-Request-Id": c.get("origin").requestId } });
    return new Response(null, { status: 101 });
  });
  await using server = serve({ routers: [router] });
  const answer = await sendRaw(
    server.port,
    [
      "GET /api/v1/ws/logs/1?token=s3cret HTTP/1.1\r\nHost: h\r\nX-Request-Id: me\r\nConnection: Upgrade\r\n",
      "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    ],
    (text) => text.endsWith("\r\n\r\n"),
  );
  expect(answer).toStartWith("HTTP/1.1 101 ");
  expect(answer).toMatch(/^x-request-id: me\r$/im);
  expect(server.lines).toHaveLength(1);
  expect(server.lines[0]).toMatchObject({ status: 101, path: "/api/v1/ws/logs/1", request_id: "me" });
});

const nobody: SocketHandlers = { open() {}, message() {}, drain() {}, close() {}, heartbeat() {} };
