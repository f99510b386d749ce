import type { MiddlewareHandler } from "hono";
import { AppError } from "../errors.ts";
import type { HttpEnv } from "./context.ts";

/** Asked of whether the process lives, not of what it can do. */
const LIVENESS_PATHS: ReadonlySet<string> = new Set(["/health", "/health/live"]);

/** Refuses what comes while the server listens and has not started: nobody is to be before its administrator. */
export function refuseUntilStarted(isStarted: () => boolean): MiddlewareHandler<HttpEnv> {
  return (c, next) => {
    if (isStarted() || LIVENESS_PATHS.has(c.req.path)) return next();
    throw new AppError("unavailable", "The server is starting", { retryAfterSeconds: 1 });
  };
}
