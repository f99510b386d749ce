import { createRoute, z } from "@hono/zod-openapi";
import type { Guard } from "../auth/guard.ts";
import { notFound } from "../errors.ts";
import { PageHeaders, PageQuery, setPageHeaders } from "../http/pagination.ts";
import { bearer, errors, json, newRouter, type Router } from "../http/router.ts";
import type { SessionInfo } from "../terminal/hub.ts";
import { TERMINAL_LIMITS } from "../terminal/limits.ts";
import { acceptSocket, type SocketOptions } from "./accept.ts";
import { SOCKET_RULES, TerminalClientMessage, TerminalServerMessage } from "./messages.ts";
import { serveTerminal, type TerminalDeps } from "./terminal.ts";
import { parseTerminalQuery, placeIn } from "./terminal-frames.ts";
import TERMINAL_PROTOCOL from "./terminal-protocol.md" with { type: "text" };

const EnvironmentId = z.string().openapi({ example: "018f2a4e6b7c000012345678" });

const TerminalBody = z
  .object({
    session_id: z.string().openapi({ example: "018f2a4e6b7c000012345678" }),
    title: z.string().nullable().openapi({ description: "As the shell or a program has set it" }),
    command: z
      .string()
      .nullable()
      .openapi({ description: "In the foreground; null: the shell, or not known" }),
    cols: z.int(),
    rows: z.int(),
    attached: z.int().openapi({ description: "Clients that look at it now" }),
    since: z.iso.datetime(),
  })
  .openapi("Terminal");

const Ticket = z
  .object({
    ticket: z.string(),
    expires_in: z.int().openapi({ description: "Seconds", example: 30 }),
  })
  .openapi("WebSocketTicket");

const listRoute = createRoute({
  method: "get",
  path: "/api/v1/environments/{environment_id}/terminals",
  operationId: "listTerminals",
  tags: ["Terminals"],
  summary: "Terminal sessions of an environment, newest first",
  description: `At most ${TERMINAL_LIMITS.sessionsPerEnvironment}; a session can be taken up with \`?session_id=\` of the terminal's WebSocket.`,
  security: bearer,
  request: { params: z.object({ environment_id: EnvironmentId }), query: PageQuery },
  responses: {
    200: { ...json(z.array(TerminalBody), "Sessions"), headers: PageHeaders },
    ...errors({ 401: "Not authenticated", 404: "No such environment", 422: "Invalid query" }),
  },
});

const endRoute = createRoute({
  method: "delete",
  path: "/api/v1/environments/{environment_id}/terminals/{session_id}",
  operationId: "endTerminal",
  tags: ["Terminals"],
  summary: "End a terminal session and what runs in it",
  security: bearer,
  request: { params: z.object({ environment_id: EnvironmentId, session_id: z.string() }) },
  responses: {
    204: { description: "It is being ended" },
    ...errors({
      401: "Not authenticated",
      404: "No such environment or session",
      503: "The cluster can't be reached to look for it",
    }),
  },
});

const ticketRoute = createRoute({
  method: "post",
  path: "/api/v1/ws/ticket",
  operationId: "createWebSocketTicket",
  tags: ["WebSockets"],
  summary: "A ticket for one WebSocket connection, so that no token stands in its URL",
  security: bearer,
  responses: {
    200: json(Ticket, "To be given as `?ticket=` at once"),
    ...errors({ 401: "Not authenticated", 503: "Too many tickets are open" }),
  },
});

/** Documented only: the socket itself says what is wrong with its query. */
const whole = (schema: { description?: string; minimum?: number; maximum?: number }) =>
  z
    .string()
    .optional()
    .openapi({ type: "integer", minimum: 0, ...schema });

const socketQuery = {
  token: z.string().optional().openapi({ description: "Access token" }),
  ticket: z.string().optional().openapi({ description: "From POST /api/v1/ws/ticket" }),
};

const terminalRoute = createRoute({
  method: "get",
  path: "/api/v1/ws/terminal/{environment_id}",
  operationId: "connectTerminal",
  tags: ["WebSockets"],
  summary: "A terminal in an environment, as a WebSocket",
  description: `${SOCKET_RULES}\n\n${TERMINAL_PROTOCOL}`,
  security: [{}, ...bearer],
  request: {
    params: z.object({ environment_id: EnvironmentId }),
    query: z.object({
      ...socketQuery,
      session_id: z
        .string()
        .optional()
        .openapi({ description: "The session to take up; without it one begins" }),
      offset: whole({ description: "Of the first byte that was not seen yet" }),
      client_id: z
        .string()
        .regex(/^[\w.-]{1,64}$/)
        .optional()
        .openapi({ description: "Names the client over reconnects" }),
      mode: z.enum(["view", "edit"]).optional().openapi({ description: "`view` can't type" }),
      cols: whole({ minimum: 1, maximum: TERMINAL_LIMITS.maxCols }),
      rows: whole({ minimum: 1, maximum: TERMINAL_LIMITS.maxRows }),
    }),
  },
  responses: {
    101: { description: "Connected" },
    ...errors({ 426: "Not a WebSocket upgrade" }),
  },
});

interface TerminalRoutes extends TerminalDeps {
  guard: Guard;
  sockets: SocketOptions;
}

/** Terminals, their sessions, and tickets for all WebSockets. */
export function terminalRoutes(deps: TerminalRoutes): Router {
  const { environments, guard, hub, sockets } = deps;
  const router = newRouter();
  router.openAPIRegistry.registerPath(terminalRoute);
  router.openAPIRegistry.register("TerminalClientMessage", TerminalClientMessage);
  router.openAPIRegistry.register("TerminalServerMessage", TerminalServerMessage);
  router.get("/api/v1/ws/terminal/:environment_id", (c) => {
    const environmentId = c.req.param("environment_id");
    const query = c.req.query();
    return acceptSocket(c, sockets, {
      place: placeIn(environmentId, query),
      serve: (peer) => serveTerminal(peer, environmentId, parseTerminalQuery(query), deps),
    });
  });
  router.openapi({ ...ticketRoute, middleware: guard.requireActor }, (c) => {
    const { tickets } = sockets;
    return c.json({ ticket: tickets.issue(c.get("actor")), expires_in: tickets.ttlMs / 1000 }, 200);
  });
  router.openapi({ ...listRoute, middleware: guard.requireActor }, async (c) => {
    const id = c.req.valid("param").environment_id;
    if (!environments.find(c.get("actor"), id)) throw notFound("Environment");
    const page = c.req.valid("query");
    const sessions = await hub.list(id);
    setPageHeaders(c, page, sessions.length);
    return c.json(sessions.slice(page.offset, page.offset + page.limit).map(terminalBody), 200);
  });
  router.openapi({ ...endRoute, middleware: guard.requireActor }, async (c) => {
    const { environment_id, session_id } = c.req.valid("param");
    if (!environments.find(c.get("actor"), environment_id)) throw notFound("Environment");
    await hub.end(environment_id, session_id);
    return c.body(null, 204);
  });
  return router;
}

function terminalBody(session: SessionInfo): z.infer<typeof TerminalBody> {
  return {
    session_id: session.id,
    title: session.title,
    command: session.command,
    cols: session.size.cols,
    rows: session.size.rows,
    attached: session.attached,
    since: new Date(session.createdAt).toISOString(),
  };
}
