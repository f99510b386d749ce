import type { Context, Hono } from "hono";
import { AppError } from "../errors.ts";
import type { HttpEnv } from "./context.ts";
import { errorResponse } from "./errors.ts";

const METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"] as const;

/**
 * Answers what no route has taken: `OPTIONS` says what a path allows, another method that a known path does
 * not allow is 405, the rest is 404.
 */
export function fallback(app: Hono<HttpEnv>) {
  return (c: Context<HttpEnv>): Response => {
    const allowed = methodsOf(app, c.req.path);
    if (allowed.length === 0) return errorResponse(c, new AppError("not_found", "Not found"));
    const allow = { Allow: allowed.join(", ") };
    if (c.req.method === "OPTIONS") return c.body(null, 204, allow);
    const answer = errorResponse(c, new AppError("method_not_allowed", "Method not allowed"));
    answer.headers.set("Allow", allow.Allow);
    return answer;
  };
}

function methodsOf(app: Hono<HttpEnv>, path: string): string[] {
  // Middleware matches every path, under the method ALL.
  const routed = METHODS.filter((method) =>
    app.router.match(method, path)[0].some(([[, route]]) => route.method === method),
  );
  if (routed.length === 0) return [];
  return [...routed.flatMap((method) => (method === "GET" ? ["GET", "HEAD"] : [method])), "OPTIONS"];
}
