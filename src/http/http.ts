import { OpenAPIHono } from "@hono/zod-openapi";
import type { Config } from "../config/config.ts";
import type { Logger } from "../lib/logger.ts";
import { limitBody } from "./body.ts";
import type { HttpEnv, SocketHandlers } from "./context.ts";
import { cors } from "./cors.ts";
import { docsRoutes } from "./docs.ts";
import { answerError } from "./errors.ts";
import { type Exchange, exchange } from "./exchange.ts";
import { fallback } from "./fallback.ts";
import { openApiDocument } from "./openapi.ts";
import { type Identify, rateLimit } from "./ratelimit.ts";
import type { Router } from "./router.ts";
import { security } from "./security.ts";
import { refuseUntilStarted } from "./starting.ts";
import { pathOf, withWholeUrl } from "./target.ts";

export interface HttpOptions {
  config: Pick<Config, "publicUrl" | "trustedProxies" | "corsOrigins" | "rateLimits">;
  /** Of the server, as the OpenAPI document tells it. */
  version: string;
  log: Logger;
  /** Who a request's token belongs to, asked before its route's guard. */
  identify: Identify;
  routers: readonly Router[];
  /** Before, only probes of whether the process lives are answered. */
  isStarted: () => boolean;
  /** Told of every answered request. */
  onAnswered?: (exchange: Exchange) => void;
}

/** What `Bun.serve` is given as `fetch`. */
export type Fetch = (request: Request, server: Bun.Server<SocketHandlers>) => Response | Promise<Response>;

/**
 * Puts the routers behind what all requests go through, in this order: request id and log, security headers
 * and HTTPS, CORS, whether the server has started, rate limits, size of the body. The reference of all routes is added. `Bun.serve` must be
 * given `maxRequestBodySize: MAX_ACCEPTED_BYTES`.
 */
export function createHttp(options: HttpOptions): Fetch {
  const { config, version, log, identify, routers, isStarted, onAnswered } = options;
  const app = new OpenAPIHono<HttpEnv>({ getPath: pathOf });
  const onError = answerError(log);
  app.use(exchange({ log, trustedProxies: config.trustedProxies, onAnswered, onError }));
  app.use(security(config));
  const crossOrigin = cors(config.corsOrigins);
  if (crossOrigin) app.use(crossOrigin);
  app.use(refuseUntilStarted(isStarted));
  app.use(rateLimit(config.rateLimits, identify));
  app.use(limitBody);
  for (const router of routers) app.route("/", router);
  const { publicUrl } = config;
  const basePath = publicUrl?.pathname.replace(/\/$/, "") ?? "";
  app.route("/", docsRoutes({ basePath, document: () => openApiDocument(routers, { version, publicUrl }) }));
  app.onError(onError);
  app.notFound(fallback(app));
  return (request, server) => app.fetch(withWholeUrl(request), { server, received: request });
}

/** Bun would refuse a larger body by itself, without our error's shape; up to this, `limitBody` does. */
export const MAX_ACCEPTED_BYTES = 2 ** 40;
