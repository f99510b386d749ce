import { connect } from "node:net";
import { createRoute, z } from "@hono/zod-openapi";
import type { Actor, SocketHandlers } from "../../src/http/context.ts";
import { createHttp, type HttpOptions, MAX_ACCEPTED_BYTES } from "../../src/http/http.ts";
import { setPageHeaders } from "../../src/http/pagination.ts";
import type { Identify } from "../../src/http/ratelimit.ts";
import { errors, json, jsonBody, newRouter, type Router } from "../../src/http/router.ts";
import { createLogger } from "../../src/lib/logger.ts";

/** Tokens of these tests are `token-USER`. */
export const identify: Identify = (c) => {
  const userId = /^Bearer token-(\w+)$/.exec(c.req.header("authorization") ?? "")?.[1];
  return userId === undefined ? undefined : actor(userId);
};

export function actor(userId: string): Actor {
  return {
    userId,
    sessionId: `session-of-${userId}`,
    username: userId,
    email: `${userId}@example.org`,
    role: "user",
    plan: "free",
    isVerified: true,
  };
}

const Thing = z
  .object({
    name: z.string().min(2).max(5),
    kind: z.enum(["a", "b"]).optional(),
    email: z.email().optional(),
    port: z.int().min(1).max(65535).optional(),
    tags: z.array(z.string()).max(2).optional(),
    variables: z.record(z.string().regex(/^[A-Z]+$/, "Capitals only"), z.string()).optional(),
    secret: z
      .string()
      .refine((value) => value !== "guess", { params: { code: "weak_password" }, message: "Too easy" })
      .optional(),
  })
  .openapi("Thing");

/** A few routes of every kind. */
export function thingRoutes(): Router {
  const router = newRouter();
  const things = { tags: ["Things"] };
  router.openapi(
    createRoute({
      method: "get",
      path: "/api/v1/things/{id}",
      operationId: "getThing",
      ...things,
      request: {
        params: z.object({ id: z.string() }),
        query: z.object({ deep: z.enum(["yes", "no"]).optional() }),
      },
      responses: { 200: json(z.object({ id: z.string() }), "It"), ...errors({ 404: "No such thing" }) },
    }),
    (c) => c.json({ id: c.req.valid("param").id }, 200),
  );
  router.openapi(
    createRoute({
      method: "post",
      path: "/api/v1/things",
      operationId: "createThing",
      ...things,
      request: jsonBody(Thing),
      responses: { 200: json(Thing, "As understood") },
    }),
    (c) => c.json(c.req.valid("json"), 200),
  );
  router.openapi(
    createRoute({
      method: "put",
      path: "/api/v1/things",
      operationId: "touchThings",
      ...things,
      request: { body: { content: { "application/json": { schema: Thing.partial() } } } },
      responses: { 200: json(Thing.partial(), "As understood") },
    }),
    (c) => c.json(c.req.valid("json"), 200),
  );
  router.openapi(
    createRoute({
      method: "post",
      path: "/form",
      operationId: "sendForm",
      ...things,
      request: {
        body: {
          content: {
            "application/x-www-form-urlencoded": { schema: z.object({ name: z.string() }) },
          },
        },
      },
      responses: { 200: json(z.object({ name: z.string() }), "As understood") },
    }),
    (c) => c.json(c.req.valid("form"), 200),
  );
  router.get("/api/v1/pages", (c) => {
    setPageHeaders(c, { limit: 5, offset: 0 }, 23);
    return c.json([]);
  });
  router.post("/reset-password", (c) => c.text("tried"));
  router.post("/api/v1/auth/login", (c) => c.json({ message: "tried" }));
  router.post("/api/v1/auth/register", (c) => c.json({ message: "tried" }));
  router.get("/api/v1/ws/terminal/:id", (c) => c.text("terminal"));
  router.get("/health", (c) => c.json({ status: "healthy" }));
  router.get("/broken", () => {
    throw new Error("password is hunter2 at /srv/secret.ts");
  });
  router.get("/broken-otherwise", () => {
    throw "hunter2";
  });
  router.get("/api/v1/origin", (c) => {
    const { requestId, ip, userAgent } = c.get("origin");
    return c.json({ requestId, ip, userAgent });
  });
  return router;
}

export interface Running extends AsyncDisposable {
  url: string;
  port: number;
  /** Requests that are being answered. */
  pending(): number;
  /** What the server has logged, as parsed lines. */
  lines: Record<string, unknown>[];
  /** Everything it has written, as it is. */
  logged(): string;
}

interface Served extends Partial<Omit<HttpOptions, "config">> {
  config?: Partial<HttpOptions["config"]>;
  tls?: Bun.TLSOptions;
}

/** A real server on a free port with everything of `createHttp` before the routers. */
export function serve({ config = {}, tls, ...options }: Served = {}): Running {
  const written: string[] = [];
  const log = createLogger({ format: "json", level: "debug", write: (line) => written.push(line) });
  const fetch = createHttp({
    version: "1.2.3",
    log,
    identify,
    routers: [thingRoutes()],
    isStarted: () => true,
    ...options,
    config: {
      publicUrl: undefined,
      trustedProxies: 0,
      corsOrigins: [],
      rateLimits: { generalPerMinute: 0, authPerMinute: 0 },
      ...config,
    },
  });
  const server = Bun.serve<SocketHandlers>({
    port: 0,
    hostname: "127.0.0.1",
    maxRequestBodySize: MAX_ACCEPTED_BYTES,
    ...(tls ? { tls } : {}),
    fetch,
    websocket: {
      message: (socket, frame) => socket.data.message(socket, frame),
    },
  });
  return {
    url: `http${tls ? "s" : ""}://127.0.0.1:${server.port}`,
    port: server.port ?? 0,
    pending: () => server.pendingRequests,
    get lines() {
      return written.map((line): Record<string, unknown> => JSON.parse(line));
    },
    logged: () => written.join(""),
    [Symbol.asyncDispose]: async () => {
      await server.stop(true);
    },
  };
}

/**
 * Sends bytes as they are and gives all that comes back until `isDone` or the server closes: for what
 * fetch would put right before sending it.
 */
export function sendRaw(
  port: number,
  parts: (string | Uint8Array)[],
  isDone: (answer: string) => boolean = (answer) => /\r\n\r\n.*\}$/s.test(answer),
): Promise<string> {
  return new Promise((resolve, reject) => {
    let answer = "";
    const socket = connect(port, "127.0.0.1", () => {
      for (const part of parts) socket.write(part);
    });
    socket.setTimeout(5000, () => socket.destroy(new Error(`no whole answer in 5 s: ${answer}`)));
    socket.on("data", (chunk) => {
      answer += chunk.toString();
      if (isDone(answer)) socket.end();
    });
    socket.on("error", reject);
    socket.on("close", () => resolve(answer));
  });
}
