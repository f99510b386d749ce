import { describe, expect, test } from "bun:test";
import { createRoute, z } from "@hono/zod-openapi";
import { openApiDocument } from "../../src/http/openapi.ts";
import { PageHeaders, PageQuery } from "../../src/http/pagination.ts";
import { bearer, json, newRouter } from "../../src/http/router.ts";
import { serve, thingRoutes } from "./server.ts";

function listRoutes() {
  const router = newRouter();
  router.openapi(
    createRoute({
      method: "get",
      path: "/api/v1/things",
      operationId: "listThings",
      summary: "All things",
      tags: ["Environments"],
      security: bearer,
      request: { query: PageQuery },
      responses: { 200: { ...json(z.array(z.object({ id: z.string() })), "Things"), headers: PageHeaders } },
    }),
    (c) => c.json([], 200),
  );
  return router;
}

describe("the OpenAPI document", () => {
  const document = openApiDocument([thingRoutes(), listRoutes()], {
    version: "1.2.3",
    publicUrl: new URL("https://pocket.example.org/"),
  });
  const responses = (path: string, method: "get" | "post" | "put") =>
    document.paths?.[path]?.[method]?.responses ?? {};

  test("names the API, its servers, its tags and how to sign in", () => {
    expect(document).toMatchObject({
      openapi: "3.1.0",
      info: { title: "DevPocket API", version: "1.2.3" },
      servers: [{ url: "/" }, { url: "https://pocket.example.org" }],
      tags: [{ name: "Environments" }],
      components: { securitySchemes: { bearerAuth: { type: "http", scheme: "bearer" } } },
    });
  });

  test("adds to each route the answers that come before it", () => {
    expect(Object.keys(responses("/api/v1/things", "get"))).toEqual(["200", "401", "422", "429", "500"]);
    expect(Object.keys(responses("/api/v1/things", "post"))).toEqual([
      "200",
      "413",
      "415",
      "422",
      "429",
      "500",
    ]);
  });

  test("documents the headers of an answer", () => {
    expect(Object.keys(responses("/api/v1/things", "get")[200].headers).toSorted()).toEqual([
      "Link",
      "X-RateLimit-Limit",
      "X-RateLimit-Remaining",
      "X-RateLimit-Reset",
      "X-Request-Id",
      "X-Total-Count",
    ]);
    expect(responses("/api/v1/things", "get")[429].headers).toHaveProperty("Retry-After");
    expect(responses("/api/v1/things", "get")[401].headers).toHaveProperty("WWW-Authenticate");
  });

  test("says what a page's parameters may be", () => {
    expect(document.paths?.["/api/v1/things"]?.get?.parameters).toContainEqual({
      name: "limit",
      in: "query",
      required: false,
      schema: {
        type: "integer",
        minimum: 1,
        maximum: 200,
        default: 50,
        description: "How many entries to answer with",
      },
      description: "How many entries to answer with",
    });
  });

  test("refers only to what is in it", () => {
    const text = JSON.stringify(document);
    for (const [, section = "", name = ""] of text.matchAll(/"#\/components\/(\w+)\/([^"]+)"/g)) {
      expect(Object.keys(JSON.parse(text).components[section])).toContain(name);
    }
    expect(Object.keys(document.components?.schemas ?? {})).toEqual(
      expect.arrayContaining(["Error", "FieldError", "RateLimitError", "Thing"]),
    );
  });
});

describe("the reference page", () => {
  const paths = [
    "/openapi.json",
    "/docs",
    "/docs/",
    "/docs/start.js",
    "/docs/swagger-ui.js",
    "/docs/swagger-ui.css",
  ];

  test.each(paths)("%s comes from the server, compressed, and once", async (path) => {
    await using server = serve();
    const response = await fetch(server.url + path, { headers: { "Accept-Encoding": "gzip" } });
    expect(response.status).toBe(200);
    const text = await response.text();
    expect(text.length).toBeGreaterThan(50);
    const etag = response.headers.get("etag") ?? "";
    const again = await fetch(server.url + path, {
      headers: { "If-None-Match": `"other", W/${etag}`, "Accept-Encoding": "gzip" },
    });
    expect(again.status).toBe(304);
    expect(await again.text()).toBe("");
    const plain = await fetch(server.url + path, { headers: { "Accept-Encoding": "identity" } });
    expect(await plain.text()).toBe(text);
    expect(plain.headers.get("etag")).not.toBe(etag);
    expect(plain.headers.get("content-encoding")).toBeNull();
  });

  test("may load and call nothing but the server", async () => {
    await using server = serve();
    const response = await fetch(`${server.url}/docs`);
    const policy = response.headers.get("content-security-policy") ?? "";
    expect(policy).toContain("default-src 'none'");
    expect(policy).toContain("script-src 'self';");
    expect(policy).toContain("frame-ancestors 'none'");
    const html = await response.text();
    expect(html).not.toMatch(/<script(?! src="\/docs\/)/);
    expect(html).not.toMatch(/https?:\/\//);
  });

  test("is where the root leads, and finds its parts under the path of the public address", async () => {
    const publicUrl = new URL("http://example.org/pocket/");
    await using server = serve({ config: { publicUrl } });
    const root = await fetch(server.url, { redirect: "manual" });
    expect([root.status, root.headers.get("location")]).toEqual([302, "/pocket/docs"]);
    const html = await (await fetch(`${server.url}/docs`)).text();
    expect(html).toContain('src="/pocket/docs/start.js"');
    expect(await (await fetch(`${server.url}/docs/start.js`)).text()).toContain('"/pocket/openapi.json"');
  });
});
