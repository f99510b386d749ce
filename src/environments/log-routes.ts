import { createRoute, z } from "@hono/zod-openapi";
import type { Context, MiddlewareHandler } from "hono";
import { LOG_LEVELS, LOG_SOURCES } from "../db/schema.ts";
import { notFound } from "../errors.ts";
import type { HttpEnv } from "../http/context.ts";
import { wholeNumber } from "../http/pagination.ts";
import { bearer, errors, newRouter } from "../http/router.ts";
import { parseIsoTime } from "../lib/iso-time.ts";
import type { StoredLine } from "../logs/chunk.ts";
import { type FollowOptions, follow } from "../logs/follow.ts";
import type { Excerpt, LogStore } from "../logs/store.ts";
import { eventStream, type LogStreams } from "./log-streams.ts";

export interface LogRoutesOptions {
  store: LogStore;
  streams: LogStreams;
  /** The environment when it is the user's. */
  owned(id: string, userId: string): { id: string; name: string } | undefined;
  /** Calls `deleted` when the environment is no more; returns how to stop that. */
  watchDeletion(id: string, deleted: () => void): () => void;
  requireActor: MiddlewareHandler<HttpEnv>;
  /** Aborts when the server stops. */
  stopping: AbortSignal;
}

/** One line of a log, in HTTP answers and event streams. */
export const LogEntry = z
  .object({
    timestamp: z.iso.datetime().openapi({ example: "2024-01-01T12:00:00.000Z" }),
    level: z.enum(LOG_LEVELS),
    message: z.string().openapi({ example: "Application started successfully" }),
    source: z.enum(LOG_SOURCES).openapi({
      description:
        "`system`: DevPocket and the cluster; `container`: the installation; `application`: what runs afterwards",
    }),
    offset: z.int().min(0).openapi({
      description: "Counts the lines of the environment; what `since_offset` and `Last-Event-ID` take",
      example: 42,
    }),
  })
  .openapi("LogEntry");

const Logs = z
  .object({
    environment_id: z.string().openapi({ example: "0193a5b2c4d6000012ab34cd" }),
    environment_name: z.string().openapi({ example: "my-python-env" }),
    logs: z.array(LogEntry).openapi({ description: "Oldest first" }),
    total_lines: z
      .int()
      .min(0)
      .openapi({ description: "Lines at or after `since`, or after `since_offset`" }),
    has_more: z.boolean().openapi({ description: "There are more lines than were returned" }),
  })
  .openapi("Logs");

const Query = z.object({
  lines: wholeNumber(1, 1000, 100, "The last so many lines; with `since_offset` the next so many"),
  since: z
    .string()
    .transform((text, context) => {
      const ms = parseIsoTime(text);
      if (ms !== undefined) return ms;
      context.addIssue({ code: "custom", message: "Must be an ISO 8601 time such as 2024-01-01T12:00:00Z" });
      return z.NEVER;
    })
    .optional()
    .openapi({ type: "string", format: "date-time", description: "Only lines at or after this time" }),
  since_offset: z
    .string()
    .regex(/^\d{1,15}$/, "Must be a whole number")
    .transform(Number)
    .optional()
    .openapi({
      type: "integer",
      minimum: 0,
      description: "Only lines after the one with this `offset`; `since` counts no more then",
    }),
  follow: z.enum(["true", "false", "1", "0"]).default("false").openapi({
    description: "Stream the lines as server-sent events (`event: log`), and go on with those that come",
  }),
});
type Query = z.output<typeof Query>;

const Headers = z.object({
  "last-event-id": z.string().optional().openapi({
    description: "With `follow`: the stream goes on after the event with this id; sent by browsers",
  }),
});

/** GET /api/v1/environments/{environment_id}/logs */
export function createLogRoutes(options: LogRoutesOptions) {
  const { store, streams, owned, watchDeletion, requireActor, stopping } = options;
  const router = newRouter();

  router.openapi(
    createRoute({
      method: "get",
      path: "/api/v1/environments/{environment_id}/logs",
      operationId: "getEnvironmentLogs",
      summary: "Log of an environment: its last lines, those after an offset, or as a stream",
      description:
        "Of a long log the first MiB and the last nine are kept; a `system` line between says how much is missing.",
      tags: ["Environments"],
      security: bearer,
      middleware: [requireActor] as const,
      request: {
        params: z.object({ environment_id: z.string().openapi({ example: "0193a5b2c4d6000012ab34cd" }) }),
        query: Query,
        headers: Headers,
      },
      responses: {
        200: {
          description: "Lines of the log",
          content: {
            "application/json": { schema: Logs },
            "text/event-stream": {
              schema: z.string().openapi({
                description:
                  "With `follow`: events `log`; `id` is the line's offset, `data` a LogEntry as JSON. Ends with the environment, or the sign-in session",
              }),
            },
          },
        },
        ...errors({
          401: "Not signed in",
          404: "No such environment of yours",
          422: "Invalid query",
          429: "Too many requests or log streams",
        }),
      },
    }),
    (c) => {
      const query = c.req.valid("query");
      const environment = owned(c.req.valid("param").environment_id, c.get("actor").userId);
      if (!environment) throw notFound("Environment");
      if (query.follow === "true" || query.follow === "1") return stream(c, environment.id, query);
      const { lines, total } = read(store, environment.id, query);
      return c.json(
        {
          environment_id: environment.id,
          environment_name: environment.name,
          logs: lines.map(logEntry),
          total_lines: total,
          has_more: total > lines.length,
        },
        200,
      );
    },
  );

  function stream(c: Context<HttpEnv>, environmentId: string, query: Query): Response {
    const { userId, sessionId } = c.get("actor");
    const end = streams.enter({ userId, sessionId });
    const signal = AbortSignal.any([end.signal, stopping, c.req.raw.signal]);
    const complete = new AbortController();
    const unwatch = watchDeletion(environmentId, () => complete.abort());
    signal.addEventListener("abort", () => {
      unwatch();
      end.abort();
    });
    // Bun cuts a request that is silent for its idle timeout.
    c.env.server.timeout(c.req.raw, 0);
    const lastEventId = c.req.header("last-event-id") ?? "";
    // A browser that connects again repeats the query it began with; where it has come to is in the header.
    const after = /^\d{1,15}$/.test(lastEventId) ? Number(lastEventId) : query.since_offset;
    const until = { signal, complete: complete.signal };
    const batches =
      after === undefined
        ? lastThenFollow(store, environmentId, query, until)
        : follow(store, environmentId, { after, ...until });
    const isSignedIn = () => streams.sessionLives(sessionId);
    const body = eventStream(batches, (line) => JSON.stringify(logEntry(line)), end, isSignedIn);
    return new Response(body, {
      headers: {
        "Content-Type": "text/event-stream",
        "Cache-Control": "no-cache",
        // nginx would hold events back to fill its buffers.
        "X-Accel-Buffering": "no",
      },
    });
  }

  return router;
}

function read(store: LogStore, environmentId: string, { lines, since, since_offset }: Query): Excerpt {
  return since_offset === undefined
    ? store.readLast(environmentId, lines, since)
    : store.readNext(environmentId, lines, since_offset);
}

async function* lastThenFollow(
  store: LogStore,
  environmentId: string,
  { lines, since }: Query,
  until: Omit<FollowOptions, "after">,
): AsyncGenerator<StoredLine[], void, void> {
  const after = store.lastSeq(environmentId);
  const { lines: last } = store.readLast(environmentId, lines, since);
  if (last.length > 0) yield last;
  yield* follow(store, environmentId, { after, ...until });
}

function logEntry(line: StoredLine): z.output<typeof LogEntry> {
  return {
    timestamp: new Date(line.atMs).toISOString(),
    level: line.level,
    message: line.message,
    source: line.source,
    offset: line.seq,
  };
}
