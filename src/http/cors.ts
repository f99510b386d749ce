import type { Context, MiddlewareHandler } from "hono";
import type { HttpEnv } from "./context.ts";
import { setHeaders } from "./response.ts";

const METHODS = "GET, HEAD, POST, PUT, DELETE, OPTIONS";
const REQUEST_HEADERS = "Authorization, Content-Type, Accept, Prefer, X-Request-Id, Last-Event-ID";
const EXPOSED_HEADERS = [
  "X-Request-Id",
  "X-Total-Count",
  "Link",
  "X-RateLimit-Limit",
  "X-RateLimit-Remaining",
  "X-RateLimit-Reset",
  "Retry-After",
  "Preference-Applied",
  "WWW-Authenticate",
].join(", ");
const PREFLIGHT_MAX_AGE_SECONDS = 600;

/** Lets web applications of the listed origins call the API, with credentials. Undefined when there are none. */
export function cors(origins: readonly string[]): MiddlewareHandler<HttpEnv> | undefined {
  if (origins.length === 0) return undefined;
  const allowed = new Set(origins);
  return async (c, next) => {
    const origin = c.req.raw.headers.get("origin");
    const known = origin !== null && allowed.has(origin);
    if (known && isPreflight(c)) c.res = preflight();
    else await next();
    // Whether or not this one was allowed, a cache must not answer another origin with it.
    const vary = c.res.headers.get("Vary");
    setHeaders(c, [["Vary", vary ? `${vary}, Origin` : "Origin"]]);
    if (!known) return;
    setHeaders(c, [
      ["Access-Control-Allow-Origin", origin],
      ["Access-Control-Allow-Credentials", "true"],
      ["Access-Control-Expose-Headers", EXPOSED_HEADERS],
    ]);
  };
}

function isPreflight(c: Context<HttpEnv>): boolean {
  return c.req.method === "OPTIONS" && c.req.raw.headers.has("access-control-request-method");
}

function preflight(): Response {
  return new Response(null, {
    status: 204,
    headers: {
      "Access-Control-Allow-Methods": METHODS,
      "Access-Control-Allow-Headers": REQUEST_HEADERS,
      "Access-Control-Max-Age": String(PREFLIGHT_MAX_AGE_SECONDS),
    },
  });
}
