import { describe, expect, test } from "bun:test";
import { serve } from "./server.ts";

const HSTS = "max-age=31536000; includeSubDomains";
const publicUrl = new URL("https://pocket.example.org");

function get(url: string, headers: Record<string, string> = {}) {
  return fetch(url, { redirect: "manual", headers });
}

describe("security headers", () => {
  test.each(["/health", "/api/v1/things/1", "/api/v1/nothing", "/broken"])("are on %s", async (path) => {
    await using server = serve();
    const { headers } = await get(server.url + path);
    expect(headers.get("x-content-type-options")).toBe("nosniff");
    expect(headers.get("x-frame-options")).toBe("DENY");
    expect(headers.get("x-xss-protection")).toBe("1; mode=block");
    expect(headers.get("strict-transport-security")).toBeNull();
  });

  test("a client's claim of HTTPS counts only behind a trusted proxy", async () => {
    const secure = { "X-Forwarded-Proto": "https" };
    await using direct = serve();
    expect((await get(`${direct.url}/health`, secure)).headers.get("strict-transport-security")).toBeNull();
    await using proxied = serve({ config: { trustedProxies: 1 } });
    expect((await get(`${proxied.url}/health`, secure)).headers.get("strict-transport-security")).toBe(HSTS);
    const claim = { "X-Forwarded-Proto": "https, http" };
    expect((await get(`${proxied.url}/health`, claim)).headers.get("strict-transport-security")).toBeNull();
  });
});

describe("with an https PUBLIC_URL", () => {
  test("plain HTTP is sent there, to the configured host", async () => {
    await using server = serve({ config: { publicUrl } });
    const response = await get(`${server.url}/api/v1/things/1?a=b%20c`, { Host: "evil.example" });
    expect(response.status).toBe(308);
    expect(response.headers.get("location")).toBe("https://pocket.example.org/api/v1/things/1?a=b%20c");
    expect(response.headers.get("x-request-id")).toBeTruthy();
  });

  test("a path of its own is kept", async () => {
    await using server = serve({ config: { publicUrl: new URL("https://example.org/pocket/") } });
    const response = await get(`${server.url}/docs`);
    expect(response.headers.get("location")).toBe("https://example.org/pocket/docs");
  });

  test("probes are answered where they ask", async () => {
    await using server = serve({ config: { publicUrl } });
    expect((await get(`${server.url}/health`)).status).toBe(200);
    expect((await get(`${server.url}/healthy`)).status).toBe(308);
  });

  test("what came over HTTPS through a trusted proxy is served", async () => {
    await using server = serve({ config: { publicUrl, trustedProxies: 1 } });
    const path = `${server.url}/api/v1/things/1`;
    expect((await get(path, { "X-Forwarded-Proto": "https" })).status).toBe(200);
    expect((await get(path, { "X-Forwarded-Proto": "http" })).status).toBe(308);
    expect((await get(path)).status).toBe(308);
  });
});

describe("CORS", () => {
  const origin = "https://app.example.org";
  const config = { corsOrigins: [origin, "http://localhost:3000"] };

  test("is off until origins are listed", async () => {
    await using server = serve();
    const { headers } = await get(`${server.url}/health`, { Origin: origin });
    expect(headers.get("access-control-allow-origin")).toBeNull();
    expect(headers.get("vary")).toBeNull();
  });

  test("lets a listed origin read answers and errors, with credentials", async () => {
    await using server = serve({ config });
    for (const path of ["/api/v1/things/1", "/api/v1/nothing", "/broken"]) {
      const { headers } = await get(server.url + path, { Origin: origin });
      expect(headers.get("access-control-allow-origin")).toBe(origin);
      expect(headers.get("access-control-allow-credentials")).toBe("true");
      expect(headers.get("access-control-expose-headers")?.split(", ")).toEqual(
        expect.arrayContaining(["X-Total-Count", "Link", "X-Request-Id", "Retry-After", "WWW-Authenticate"]),
      );
      expect(headers.get("vary")).toBe("Origin");
    }
  });

  test.each([
    "https://evil.example",
    "https://app.example.org.evil.example",
    "null",
    "https://APP.example.org",
  ])("tells %s nothing", async (other) => {
    await using server = serve({ config });
    const { status, headers } = await get(`${server.url}/health`, { Origin: other });
    expect(status).toBe(200);
    expect(headers.get("access-control-allow-origin")).toBeNull();
    expect(headers.get("access-control-allow-credentials")).toBeNull();
    expect(headers.get("vary")).toBe("Origin");
  });

  test("answers a preflight without a token, a limit or a route", async () => {
    await using server = serve({
      config: { ...config, rateLimits: { generalPerMinute: 1, authPerMinute: 1 } },
    });
    for (let i = 0; i < 3; i++) {
      const response = await fetch(`${server.url}/api/v1/auth/login`, {
        method: "OPTIONS",
        headers: {
          Origin: origin,
          "Access-Control-Request-Method": "POST",
          "Access-Control-Request-Headers": "authorization,content-type,prefer",
        },
      });
      expect(response.status).toBe(204);
      expect(response.headers.get("access-control-allow-origin")).toBe(origin);
      expect(response.headers.get("access-control-allow-methods")).toContain("DELETE");
      expect(response.headers.get("access-control-allow-headers")).toContain("Authorization");
      expect(response.headers.get("access-control-max-age")).toBe("600");
    }
  });

  test("a preflight of another origin allows nothing", async () => {
    await using server = serve({ config });
    const response = await fetch(`${server.url}/api/v1/things`, {
      method: "OPTIONS",
      headers: { Origin: "https://evil.example", "Access-Control-Request-Method": "POST" },
    });
    expect(response.headers.get("access-control-allow-origin")).toBeNull();
    expect(response.headers.get("access-control-allow-methods")).toBeNull();
  });
});
