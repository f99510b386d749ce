import { expect, test } from "bun:test";
import { identify, type Running, sendRaw, serve } from "./server.ts";

const limited = (generalPerMinute: number, authPerMinute: number) => ({
  rateLimits: { generalPerMinute, authPerMinute },
  trustedProxies: 1,
});

async function call(server: Running, path: string, { token, ip }: { token?: string; ip?: string } = {}) {
  const headers = new Headers({ "X-Forwarded-For": ip ?? "192.0.2.1" });
  if (token) headers.set("Authorization", `Bearer ${token}`);
  const method = /\/auth\/|-password$/.test(path) ? "POST" : "GET";
  const response = await fetch(server.url + path, { method, headers });
  const left = response.headers.get("x-ratelimit-remaining");
  return { status: response.status, left: left === null ? null : Number(left), response };
}

test("the first over the limit is 429, with all that a client needs to wait", async () => {
  await using server = serve({ config: limited(3, 5) });
  const before = Date.now();
  for (const left of [2, 1, 0]) {
    const answer = await call(server, "/api/v1/things/1");
    expect(answer).toMatchObject({ status: 200, left });
    expect(answer.response.headers.get("x-ratelimit-limit")).toBe("3");
  }
  const { status, left, response } = await call(server, "/api/v1/things/1");
  expect({ status, left }).toEqual({ status: 429, left: 0 });
  const retryAfter = Number(response.headers.get("retry-after"));
  // What is left of a minute, in whole seconds; the last slice of time ends up to a millisecond after it.
  expect(retryAfter).toBeWithin(59, 62);
  const reset = Number(response.headers.get("x-ratelimit-reset"));
  expect(reset * 1000).toBeWithin(before + 60_000, Date.now() + 62_000);
  expect(await response.json()).toEqual({
    detail: "Rate limit exceeded. Try again later.",
    errors: [],
    timestamp: expect.any(String),
    path: "/api/v1/things/1",
    retry_after: retryAfter,
  });
  expect(response.headers.get("x-request-id")).toBeTruthy();
});

test("a good token counts for its user, a bad one for its address", async () => {
  await using server = serve({ config: limited(1, 5) });
  const statusOf = async (token: string | undefined, ip: string) =>
    (await call(server, "/api/v1/things/1", { ip, ...(token ? { token } : {}) })).status;
  expect(await statusOf("token-ada", "192.0.2.1")).toBe(200);
  expect(await statusOf("token-ada", "192.0.2.2")).toBe(429);
  expect(await statusOf("token-bob", "192.0.2.1")).toBe(200);
  expect(await statusOf(undefined, "192.0.2.1")).toBe(200);
  expect(await statusOf("forged-1", "192.0.2.1")).toBe(429);
  expect(await statusOf("forged-2", "192.0.2.3")).toBe(200);
  expect(await statusOf("forged-3", "192.0.2.3")).toBe(429);
  expect(await statusOf(undefined, "2001:db8:1:2::1")).toBe(200);
  expect(await statusOf(undefined, "2001:db8:1:2:ffff::9")).toBe(429);
  expect(await statusOf(undefined, "2001:db8:1:3::1")).toBe(200);
});

test("credential endpoints share one small allowance per address, whoever is signed in", async () => {
  await using server = serve({ config: limited(100, 2) });
  expect(await call(server, "/api/v1/auth/login")).toMatchObject({ status: 200, left: 1 });
  expect(await call(server, "/api/v1/auth/register/")).toMatchObject({ status: 200, left: 0 });
  const spellings = ["login", "login/", "%6cogin", "register", "forgot-password"];
  for (const path of [...spellings.map((name) => `/api/v1/auth/${name}`), "/reset-password"]) {
    const answer = await call(server, path, { token: "token-ada" });
    expect(answer.status).toBe(429);
    expect(answer.response.headers.get("x-ratelimit-limit")).toBe("2");
  }
  expect((await call(server, "/api/v1/auth/login", { ip: "192.0.2.2" })).status).toBe(200);
  expect(await call(server, "/api/v1/things/1")).toMatchObject({ status: 200, left: 99 });
});

test("the networks of an IPv6 site share ten times the allowance of one; a refused one uses up nothing", async () => {
  await using server = serve({ config: limited(100, 2) });
  const statusOf = async (ip: string) => (await call(server, "/api/v1/auth/login", { ip })).status;
  for (let n = 0; n < 30; n++) expect(await statusOf("2001:db8:1::1")).toBe(n < 2 ? 200 : 429);
  for (let n = 1; n <= 20; n++) expect(await statusOf(`2001:db8:1:${n}::1`)).toBe(n <= 18 ? 200 : 429);
  expect(await statusOf("2001:db8:2::1")).toBe(200);
});

test("the token is not looked at on credential endpoints and outside of the API", async () => {
  let asked = 0;
  await using server = serve({
    config: limited(100, 100),
    identify: (c) => {
      asked += 1;
      return identify(c);
    },
  });
  await call(server, "/api/v1/auth/login", { token: "token-ada" });
  await call(server, "/health", { token: "token-ada" });
  expect(asked).toBe(0);
  await call(server, "/api/v1/things/1", { token: "token-ada" });
  expect(asked).toBe(1);
});

test("health checks and WebSocket upgrades are not limited, what only claims to be one is", async () => {
  await using server = serve({ config: limited(1, 1) });
  for (let i = 0; i < 5; i++) {
    expect(await call(server, "/health")).toMatchObject({ status: 200, left: null });
    const upgrade = `GET /api/v1/ws/terminal/1 HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: WebSocket\r\n\r\n`;
    const answer = await sendRaw(server.port, [upgrade], (text) => text.endsWith("terminal"));
    expect(answer).toStartWith("HTTP/1.1 200");
  }
  const claim = `GET /api/v1/things/1 HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n`;
  expect(await sendRaw(server.port, [claim])).toStartWith("HTTP/1.1 200");
  expect(await sendRaw(server.port, [claim])).toStartWith("HTTP/1.1 429");
});

test("what fails counts and carries the headers too", async () => {
  await using server = serve({ config: limited(4, 5) });
  expect(await call(server, "/api/v1/nothing")).toMatchObject({ status: 404, left: 3 });
  expect(await call(server, "/api/v1/things")).toMatchObject({ status: 405, left: 2 });
  expect(await call(server, "/api/v1/things/1?deep=maybe")).toMatchObject({ status: 422, left: 1 });
});

test("a limit of 0 is none", async () => {
  await using server = serve({ config: limited(0, 0) });
  for (const path of ["/api/v1/things/1", "/api/v1/auth/login"]) {
    expect(await call(server, path)).toMatchObject({ status: 200, left: null });
  }
});
