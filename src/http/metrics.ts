import { createHash, timingSafeEqual } from "node:crypto";
import { ConfigError } from "../config/config.ts";
import { AppError } from "../errors.ts";
import type { Metrics } from "../metrics.ts";
import { bearerToken } from "./bearer.ts";
import { newRouter, type Router } from "./router.ts";
import { pathOf } from "./target.ts";

/** `/metrics` on the server's own port, for who has the token. */
export function metricsRoutes(metrics: Metrics, token: string): Router {
  const router = newRouter();
  router.get("/metrics", async (c) => {
    if (!mayRead(c.req.raw, token)) throw new AppError("unauthenticated", "The metrics token is required");
    return exposition(metrics);
  });
  return router;
}

interface MetricsServer {
  host: string;
  port: number;
  /** Without one, whoever reaches the port may read. */
  token: string | undefined;
}

/** Serves `/metrics`, and nothing else, on a port of its own. @throws ConfigError when it can't be had */
export function serveMetrics(metrics: Metrics, server: MetricsServer): Bun.Server<undefined> {
  try {
    return listen(metrics, server);
  } catch {
    const { host, port } = server;
    throw new ConfigError(`METRICS_PORT=${port} can't be had on ${host}. Example: METRICS_PORT=9090`);
  }
}

function listen(metrics: Metrics, { host, port, token }: MetricsServer): Bun.Server<undefined> {
  return Bun.serve({
    hostname: host,
    port,
    fetch(request) {
      if (pathOf(request) !== "/metrics") {
        return new Response("Not found\n", { status: 404 });
      }
      if (token !== undefined && !mayRead(request, token)) {
        return new Response("Unauthorized\n", { status: 401, headers: { "WWW-Authenticate": "Bearer" } });
      }
      return exposition(metrics);
    },
  });
}

async function exposition(metrics: Metrics): Promise<Response> {
  return new Response(await metrics.render(), { headers: { "Content-Type": metrics.contentType } });
}

/** Compares digests: the time it takes tells nothing, not even the token's length. */
function mayRead(request: Request, token: string): boolean {
  const offered = bearerToken(request.headers.get("authorization"));
  return offered !== undefined && timingSafeEqual(digest(offered), digest(token));
}

function digest(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}
