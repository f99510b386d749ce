import { createRoute, z } from "@hono/zod-openapi";
import type { Context, MiddlewareHandler } from "hono";
import type { Place } from "../clusters/placement.ts";
import { type Db, inTransaction } from "../db/open.ts";
import { ENVIRONMENT_STATUSES, type Resources } from "../db/schema.ts";
import { AppError, notFound } from "../errors.ts";
import { auditActor } from "../http/audit-actor.ts";
import type { HttpEnv } from "../http/context.ts";
import { ErrorBody, RetryAfterHeaders } from "../http/errors.ts";
import { PageHeaders, PageQuery, setPageHeaders } from "../http/pagination.ts";
import { PreferenceHeaders, preferredWaitSeconds, waitApplied } from "../http/prefer.ts";
import { bearer, errors, json, jsonBody, newRouter } from "../http/router.ts";
import type { FindTemplate } from "../templates/templates.ts";
import { createEnvironment } from "./create.ts";
import type { StatusFeed } from "./feed.ts";
import type { Deadlines, Verb } from "./lifecycle.ts";
import { type Environment, type EnvironmentPage, type EnvironmentRows, filterEnvironments } from "./rows.ts";
import {
  CreateBody,
  EnvironmentObject,
  environmentObject,
  Metrics,
  UpdateBody,
  VerbAnswer,
} from "./schemas.ts";
import { settled } from "./settle.ts";
import { updateEnvironment } from "./update.ts";
import type { UsageMeter } from "./usage.ts";
import { answerTo, applyVerb } from "./verbs.ts";

export interface EnvironmentRoutesOptions {
  db: Db;
  rows: EnvironmentRows;
  feed: StatusFeed;
  usage: UsageMeter;
  deadlines: Deadlines;
  requireActor: MiddlewareHandler<HttpEnv>;
  findTemplate: FindTemplate;
  place: Place;
  /** Creating demands a verified address. */
  mailConfigured: boolean;
  /** There is a new environment to be looked at. */
  wake(environmentId: string): void;
  /** A verb has been written: the reconciler looks, and whoever watches is told. */
  follow(before: Environment, after: Environment): void;
  /** Aborts when the server stops. */
  stopping: AbortSignal;
  now(): number;
}

const Id = z.object({ environment_id: z.string().openapi({ example: "0193a5b2c4d6000012ab34cd" }) });
const PATH = "/api/v1/environments/{environment_id}";
const tags = ["Environments"];
const security = bearer;

const Prefer = z.object({
  prefer: z.string().optional().openapi({
    description:
      "`wait=N` (RFC 7240) holds the answer until the environment has settled, at most N ≤ 60 seconds",
    example: "wait=30",
  }),
});

const unknown = { 401: "Not signed in", 404: "No such environment of yours" };

/** The routes of /api/v1/environments but for logs and terminals. */
export function createEnvironmentRoutes(options: EnvironmentRoutesOptions) {
  const { db, rows, feed, deadlines, now, requireActor } = options;
  const router = newRouter();
  const middleware = requireActor;

  function owned(c: Context<HttpEnv>, id: string): Environment {
    const row = rows.owned(id, c.get("actor").userId);
    if (!row) throw notFound("Environment");
    return row;
  }

  function wait(c: Context<HttpEnv>, row: Environment): Promise<Environment> {
    const seconds = preferredWaitSeconds(c.req.header("prefer"));
    if (seconds === undefined) return Promise.resolve(row);
    // Bun cuts a request that is silent for its idle timeout.
    c.env.server.timeout(c.req.raw, 0);
    c.header("Preference-Applied", waitApplied(seconds));
    return settled(row, {
      rows,
      feed,
      seconds,
      signal: AbortSignal.any([c.req.raw.signal, options.stopping]),
    });
  }

  function command(c: Context<HttpEnv>, id: string, verb: Verb): Environment {
    const { before, after } = inTransaction(db, (tx) => {
      const row = owned(c, id);
      return {
        before: row,
        after: applyVerb(tx, row, verb, { actor: auditActor(c), deadlines, now: now() }),
      };
    });
    options.follow(before, after);
    return after;
  }

  router.openapi(
    createRoute({
      method: "post",
      path: "/api/v1/environments",
      operationId: "createEnvironment",
      summary: "Create an environment; answers at once, with status creating",
      tags,
      security,
      middleware,
      request: { ...jsonBody(CreateBody), headers: Prefer },
      responses: {
        201: { ...json(EnvironmentObject, "Created"), headers: PreferenceHeaders },
        ...errors({
          400: "Template or cluster unknown or not to be had",
          401: "Not signed in",
          403: "The plan is full (`plan_limit`), or the address is not verified (`email_unverified`)",
          409: "You have an environment of that name",
          422: "Invalid request, or above the plan's ceiling",
        }),
        503: {
          ...json(ErrorBody, "No cluster has room, or can be reached (`no_cluster`)"),
          headers: RetryAfterHeaders,
        },
      },
    }),
    async (c) => {
      const body = c.req.valid("json");
      const actor = c.get("actor");
      const template = options.findTemplate(body.template ?? body.template_id ?? "", actor.role);
      if (!template) throw new AppError("invalid", "Template not found");
      const row = createEnvironment(
        {
          db,
          userId: actor.userId,
          auditActor: auditActor(c),
          template,
          place: options.place,
          mailConfigured: options.mailConfigured,
          deadlines,
          now: now(),
        },
        {
          name: body.name,
          description: body.description ?? null,
          cluster: body.cluster_id ?? null,
          resources: given(body.resources),
          variables: body.environment_variables ?? {},
        },
      );
      options.wake(row.id);
      return c.json(environmentObject(await wait(c, row)), 201);
    },
  );

  router.openapi(
    createRoute({
      method: "get",
      path: "/api/v1/environments",
      operationId: "listEnvironments",
      summary: "Your environments, newest first",
      tags,
      security,
      middleware,
      request: {
        query: PageQuery.extend({
          status: z
            .enum([...ENVIRONMENT_STATUSES, "deleting"])
            .optional()
            .openapi({
              description: "Terminated ones are listed only when asked for; `deleting` finds nothing",
            }),
          template_id: z.string().optional().openapi({ description: "Id, name or slug of a template" }),
        }),
      },
      responses: {
        200: { ...json(z.array(EnvironmentObject), "Environments"), headers: PageHeaders },
        ...errors({ 401: "Not signed in", 422: "Invalid query" }),
      },
    }),
    (c) => {
      const { limit, offset, status, template_id } = c.req.valid("query");
      const userId = c.get("actor").userId;
      const page = { limit, offset };
      const found = (): EnvironmentPage => {
        if (status === undefined && template_id === undefined) return rows.living(userId, page);
        const template = template_id === undefined ? undefined : options.findTemplate(template_id, "admin");
        if (status === "deleting" || (template_id !== undefined && !template)) return { rows: [], total: 0 };
        const filter = {
          userId,
          ...(status ? { status } : {}),
          ...(template ? { templateId: template.id } : {}),
        };
        return filterEnvironments(db, filter, page);
      };
      const { rows: items, total } = found();
      setPageHeaders(c, page, total);
      return c.json(items.map(environmentObject), 200);
    },
  );

  router.openapi(
    createRoute({
      method: "get",
      path: PATH,
      operationId: "getEnvironment",
      summary: "One environment",
      tags,
      security,
      middleware,
      request: { params: Id },
      responses: { 200: json(EnvironmentObject, "The environment"), ...errors(unknown) },
    }),
    (c) => c.json(environmentObject(owned(c, c.req.valid("param").environment_id)), 200),
  );

  router.openapi(
    createRoute({
      method: "put",
      path: PATH,
      operationId: "updateEnvironment",
      summary: "Change an environment; what needs new containers waits for the next start or restart",
      tags,
      security,
      middleware,
      request: { params: Id, ...jsonBody(UpdateBody) },
      responses: {
        200: json(EnvironmentObject, "Saved"),
        ...errors({
          ...unknown,
          400: "The environment is terminated",
          409: "You have an environment of that name",
          422: "Invalid request, above the plan's ceiling, or shrinking storage",
        }),
      },
    }),
    (c) => {
      const body = c.req.valid("json");
      const row = updateEnvironment(
        { db, rows, userId: c.get("actor").userId, auditActor: auditActor(c), now: now() },
        c.req.valid("param").environment_id,
        {
          ...(body.name != null ? { name: body.name } : {}),
          ...(body.description != null ? { description: body.description } : {}),
          ...(body.resources ? { resources: given(body.resources) } : {}),
          ...(body.environment_variables ? { variables: body.environment_variables } : {}),
        },
      );
      return c.json(environmentObject(row), 200);
    },
  );

  router.openapi(
    createRoute({
      method: "delete",
      path: PATH,
      operationId: "deleteEnvironment",
      summary: "Delete an environment, in whatever state",
      tags,
      security,
      middleware,
      request: { params: Id, headers: Prefer },
      responses: {
        204: {
          description: "Deleted; the teardown goes on until nothing is left",
          headers: PreferenceHeaders,
        },
        ...errors(unknown),
      },
    }),
    async (c) => {
      const { environment_id: id } = c.req.valid("param");
      const row = owned(c, id);
      await wait(c, row.status === "terminated" ? row : command(c, id, "delete"));
      return c.body(null, 204);
    },
  );

  for (const verb of ["start", "stop", "restart", "recover"] as const) {
    router.openapi(verbRoute(verb, middleware), async (c) => {
      const begun = command(c, c.req.valid("param").environment_id, verb);
      const row = await wait(c, begun);
      return c.json({ message: answerTo(verb, begun, row), status: row.status }, 200);
    });
  }

  router.openapi(
    createRoute({
      method: "get",
      path: `${PATH}/metrics`,
      operationId: "getEnvironmentMetrics",
      summary: "Measured use of CPU, memory, storage and network",
      tags,
      security,
      middleware,
      request: { params: Id },
      responses: { 200: json(Metrics, "As measured; null: not known"), ...errors(unknown) },
    }),
    async (c) => {
      const row = owned(c, c.req.valid("param").environment_id);
      const measured = await options.usage.measure(row);
      return c.json(
        {
          environment_id: row.id,
          cpu_usage: measured.cpu,
          memory_usage: measured.memory,
          storage_usage: measured.storage,
          network_rx: measured.networkRxBytes,
          network_tx: measured.networkTxBytes,
          uptime: measured.uptimeSeconds,
          last_updated: new Date(measured.atMs).toISOString(),
        },
        200,
      );
    },
  );

  return router;
}

function verbRoute(verb: "start" | "stop" | "restart" | "recover", middleware: MiddlewareHandler<HttpEnv>) {
  return createRoute({
    method: "post",
    path: `${PATH}/${verb}`,
    operationId: `${verb}Environment`,
    summary: `${verb[0]?.toUpperCase()}${verb.slice(1)} an environment; answers at once unless asked to wait`,
    tags,
    security,
    middleware,
    request: { params: Id, headers: Prefer },
    responses: {
      200: {
        ...json(VerbAnswer, "Begun, or with `Prefer: wait` how it ended"),
        headers: PreferenceHeaders,
      },
      ...errors({ ...unknown, 400: "Its status does not allow it (`invalid_state`)" }),
    },
  });
}

/** Nulls are as good as absent. */
function given(
  resources: { [K in keyof Resources]?: string | null | undefined } | null | undefined,
): Partial<Resources> {
  const entries = Object.entries(resources ?? {}).filter(([, value]) => value != null);
  return Object.fromEntries(entries);
}
