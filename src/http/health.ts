import { createRoute, z } from "@hono/zod-openapi";
import { AppError } from "../errors.ts";
import { errors, json, newRouter, type Router } from "./router.ts";

const SERVICE = "DevPocket API";

export interface About {
  version: string;
  /** Name of the installation: production, staging. */
  environment: string;
}

/** What this installation offers; each is true only where it is configured and works. */
export interface Features {
  googleOauth: boolean;
  rateLimiting: boolean;
  metrics: boolean;
  mail: boolean;
  registration: boolean;
}

/** How much the embedded runtime keeps environments apart: `none` is one user of the host for all. */
export interface LocalRuntimeInfo {
  enabled: boolean;
  sandbox: "bubblewrap" | "none" | null;
}

export interface HealthOptions {
  about: About;
  /** Throws, saying why to the log only, when what it names does not work. */
  checks: Record<string, () => void>;
  info: {
    features: Features;
    environmentsPerPlan: { free: number; starter: number; pro: number };
    localRuntime(): LocalRuntimeInfo;
  };
  now: () => number;
  onUnhealthy: (check: string, error: unknown) => void;
}

const Health = z
  .object({
    status: z.literal("healthy"),
    service: z.string().openapi({ example: SERVICE }),
    version: z.string().openapi({ example: "1.0.0" }),
    environment: z.string().openapi({ example: "production" }),
    timestamp: z.number().openapi({ description: "Seconds since the epoch", example: 1722729600.0 }),
  })
  .openapi("Health");

const Readiness = z
  .object({
    status: z.literal("ready"),
    checks: z.record(z.string(), z.literal("healthy")).openapi({ example: { database: "healthy" } }),
  })
  .openapi("Readiness");

const Liveness = z.object({ status: z.literal("alive") }).openapi("Liveness");

const Info = z
  .object({
    name: z.string().openapi({ example: SERVICE }),
    version: z.string().openapi({ example: "1.0.0" }),
    environment: z.string().openapi({ example: "production" }),
    features: z.object({
      authentication: z.boolean(),
      google_oauth: z.boolean(),
      websockets: z.boolean(),
      rate_limiting: z.boolean(),
      metrics: z.boolean(),
      email: z.boolean().openapi({ description: "Whether messages are sent; else links are in the log" }),
      registration: z.boolean().openapi({ description: "Whether anyone may register" }),
    }),
    limits: z.object({
      free_environments: z.int().openapi({ example: 1 }),
      starter_environments: z.int().openapi({ example: 3 }),
      pro_environments: z.int().openapi({ example: 10 }),
    }),
    local_runtime: z.object({
      enabled: z.boolean(),
      sandbox: z.enum(["bubblewrap", "none"]).nullable().openapi({
        description: "What keeps environments on the server's own host apart; null when there are none",
      }),
    }),
  })
  .openapi("Info");

const tags = ["Health"];

const healthRoute = createRoute({
  method: "get",
  path: "/health",
  operationId: "getHealth",
  tags,
  summary: "Whether the server answers",
  responses: { 200: json(Health, "It does") },
});

const readyRoute = createRoute({
  method: "get",
  path: "/health/ready",
  operationId: "getReadiness",
  tags,
  summary: "Whether requests can be served; the database is read and, at most every few seconds, written",
  responses: {
    200: json(Readiness, "They can"),
    ...errors({ 503: "Something that is needed does not work; `errors` names it" }),
  },
});

const liveRoute = createRoute({
  method: "get",
  path: "/health/live",
  operationId: "getLiveness",
  tags,
  summary: "Whether the process lives",
  responses: { 200: json(Liveness, "It does") },
});

const infoRoute = createRoute({
  method: "get",
  path: "/api/v1/info",
  operationId: "getInfo",
  tags,
  summary: "What this installation offers",
  responses: { 200: json(Info, "Version, features and limits") },
});

/** What orchestrators and clients ask before anything else. */
export function healthRoutes({ about, checks, info, now, onUnhealthy }: HealthOptions): Router {
  const router = newRouter();
  router.openapi(healthRoute, (c) =>
    c.json({ status: "healthy" as const, service: SERVICE, ...about, timestamp: now() / 1000 }, 200),
  );
  router.openapi(readyRoute, (c) => c.json(readiness(checks, onUnhealthy), 200));
  router.openapi(liveRoute, (c) => c.json({ status: "alive" as const }, 200));
  router.openapi(infoRoute, (c) => c.json(infoBody(about, info), 200));
  return router;
}

/** @throws AppError unavailable, with the names of the checks that failed */
export function readiness(
  checks: HealthOptions["checks"],
  onUnhealthy: HealthOptions["onUnhealthy"],
): z.infer<typeof Readiness> {
  const failed = Object.entries(checks).flatMap(([name, check]) => {
    try {
      check();
      return [];
    } catch (error) {
      onUnhealthy(name, error);
      return [{ field: name, message: `The ${name} is not available`, code: "unhealthy" }];
    }
  });
  if (failed.length > 0) throw new AppError("unavailable", "Not ready", { fields: failed });
  const healthy = Object.keys(checks).map((name) => [name, "healthy"] as const);
  return { status: "ready", checks: Object.fromEntries(healthy) };
}

export function infoBody(
  about: About,
  { features, environmentsPerPlan, localRuntime }: HealthOptions["info"],
): z.infer<typeof Info> {
  return {
    name: SERVICE,
    ...about,
    features: {
      authentication: true,
      google_oauth: features.googleOauth,
      websockets: true,
      rate_limiting: features.rateLimiting,
      metrics: features.metrics,
      email: features.mail,
      registration: features.registration,
    },
    limits: {
      free_environments: environmentsPerPlan.free,
      starter_environments: environmentsPerPlan.starter,
      pro_environments: environmentsPerPlan.pro,
    },
    local_runtime: localRuntime(),
  };
}
