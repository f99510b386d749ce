import type { Context, MiddlewareHandler } from "hono";
import { routePath } from "hono/route";
import type { Logger } from "../lib/logger.ts";
import type { HttpEnv } from "./context.ts";
import { RequestOrigin, requestId } from "./origin.ts";
import { setHeaders } from "./response.ts";

const MAX_LOGGED_LENGTH = 256;

/** What is known of a request when it has been answered. */
export interface Exchange {
  method: string;
  /** The route's template, "/api/v1/environments/:id"; "unmatched" when there is none. */
  route: string;
  status: number;
  durationMs: number;
}

interface ExchangeOptions {
  log: Logger;
  trustedProxies: number;
  onAnswered?: ((exchange: Exchange) => void) | undefined;
  /** Hono's error handler, for what it does not hand to it: what was thrown and is no Error. */
  onError: (error: Error, c: Context<HttpEnv>) => Response;
}

/** The outermost of what every request goes through: gives it its id and origin, and a line in the log. */
export function exchange({
  log,
  trustedProxies,
  onAnswered,
  onError,
}: ExchangeOptions): MiddlewareHandler<HttpEnv> {
  return async (c, next) => {
    const began = performance.now();
    const { headers } = c.req.raw;
    const id = requestId(headers.get("x-request-id"));
    c.set("origin", new RequestOrigin(c, id, trustedProxies));
    try {
      await next();
    } catch (thrown) {
      c.res = onError(new Error(`not an Error was thrown: ${String(thrown)}`), c);
    }
    setHeaders(c, [["X-Request-Id", id]]);
    // Hono keeps a HEAD's headers and forgets its body: a stream would run on.
    if (c.req.method === "HEAD") await c.res.body?.cancel();
    const { status } = c.res;
    const durationMs = performance.now() - began;
    log.info("request", {
      request_id: id,
      method: c.req.method,
      path: c.req.path.slice(0, MAX_LOGGED_LENGTH),
      user: c.get("actor")?.userId,
      status,
      ms: Math.round(durationMs * 10) / 10,
    });
    if (onAnswered) onAnswered({ method: c.req.method, route: templateOf(routePath(c)), status, durationMs });
  };
}

/** Of a request that no route took, the last that matched is middleware. */
function templateOf(path: string): string {
  return path.endsWith("*") ? "unmatched" : path;
}
