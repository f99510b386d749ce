import type { Context, MiddlewareHandler } from "hono";
import { AppError } from "../errors.ts";
import type { Actor, HttpEnv } from "./context.ts";
import { errorResponse } from "./errors.ts";
import { networkOf, siteOf } from "./origin.ts";
import { setHeaders } from "./response.ts";
import { SlidingWindow, type Verdict } from "./window.ts";

/** Where passwords, codes and provider tokens are tried: one small allowance per address for all of them. */
const CREDENTIAL_PATHS: ReadonlySet<string> = new Set([
  "/api/v1/auth/register",
  "/api/v1/auth/login",
  "/api/v1/auth/google",
  "/api/v1/auth/verify-email",
  "/api/v1/auth/resend-verification",
  "/api/v1/auth/forgot-password",
  "/api/v1/auth/reset-password",
  // The pages that messages link to.
  "/verify-email",
  "/reset-password",
]);

/** The allowance of a whole IPv6 site at the credential endpoints, in those of one of its networks. */
const NETWORKS_PER_SITE = 10;

const SOCKET_PATH = /^\/api\/v1\/ws\/(?:terminal|logs)\//;

/**
 * Who a request's token belongs to; undefined without a token or with one that is no good. It is asked
 * before the guard of a route: it keeps what it found, so that a token is checked once.
 */
export type Identify = (c: Context<HttpEnv>) => Actor | undefined | Promise<Actor | undefined>;

export interface RateLimits {
  /** Per user, per address when signed out; 0 is no limit. */
  generalPerMinute: number;
  /** Per address, ten times as many per IPv6 site; 0 is no limit. */
  authPerMinute: number;
}

/**
 * Limits requests under `/api/v1`, and wherever credentials are tried, and tells each how it stands.
 * WebSocket upgrades have limits of their own.
 *
 * @param nowMs milliseconds since the epoch; must not run backwards
 */
export function rateLimit(
  limits: RateLimits,
  identify: Identify,
  nowMs: () => number = steadyNow,
): MiddlewareHandler<HttpEnv> {
  const general = limits.generalPerMinute > 0 ? new SlidingWindow({ limit: limits.generalPerMinute }) : null;
  const credentials = limits.authPerMinute > 0 ? credentialLimit(limits.authPerMinute) : null;

  async function take(c: Context<HttpEnv>): Promise<Verdict | undefined> {
    if (c.req.method === "POST" && CREDENTIAL_PATHS.has(c.req.path)) {
      return credentials?.(c.get("origin").ip, nowMs());
    }
    if (!general || !c.req.path.startsWith("/api/v1/") || isUpgrade(c)) return undefined;
    const found = identify(c);
    const actor = found instanceof Promise ? await found : found;
    return general.take(actor ? actor.userId : networkOf(c.get("origin").ip), nowMs());
  }

  return async (c, next) => {
    const verdict = await take(c);
    if (!verdict) return next();
    if (verdict.allowed) await next();
    else c.res = errorResponse(c, rateLimited(verdict, nowMs()));
    setHeaders(c, [
      ["X-RateLimit-Limit", String(verdict.limit)],
      ["X-RateLimit-Remaining", String(verdict.remaining)],
      ["X-RateLimit-Reset", String(Math.ceil(verdict.resetAtMs / 1000))],
    ]);
  };
}

/** By network, and for IPv6 by site too: who is given a /48 has more networks than anybody has guesses. */
function credentialLimit(perMinute: number): (address: string, nowMs: number) => Verdict {
  const networks = new SlidingWindow({ limit: perMinute });
  const sites = new SlidingWindow({ limit: perMinute * NETWORKS_PER_SITE });
  return (address, nowMs) => {
    const verdict = networks.take(networkOf(address), nowMs);
    const site = siteOf(address);
    // What is refused does not count, for the site neither: one network must not use up what is everybody's.
    const ofSite = verdict.allowed && site !== undefined ? sites.take(site, nowMs) : undefined;
    return ofSite?.allowed === false ? ofSite : verdict;
  };
}

function rateLimited(verdict: Verdict, now: number): AppError {
  return new AppError("rate_limited", "Rate limit exceeded. Try again later.", {
    retryAfterSeconds: Math.max(1, Math.ceil((verdict.resetAtMs - now) / 1000)),
  });
}

function isUpgrade(c: Context<HttpEnv>): boolean {
  return SOCKET_PATH.test(c.req.path) && c.req.raw.headers.get("upgrade")?.toLowerCase() === "websocket";
}

/** The time since the epoch as of a clock that is never set back. */
function steadyNow(): number {
  return performance.timeOrigin + performance.now();
}
