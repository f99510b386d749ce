import type { Context } from "hono";
import { AppError } from "../errors.ts";
import type { Actor, HttpEnv, SocketHandlers } from "../http/context.ts";
import type { Logger } from "../lib/logger.ts";
import { type Channel, Connection, type Peer } from "./connection.ts";
import type { Connections } from "./connections.ts";
import { BINARY_PROTOCOL, checkOrigin, chooseProtocol, credentialOf } from "./credentials.ts";
import { SOCKET_LIMITS } from "./limits.ts";
import type { Tickets } from "./tickets.ts";

export interface SocketOptions {
  /** Who an access token belongs to; throws AppError for one that is not valid (any more). */
  authenticate(token: string): Promise<Actor>;
  tickets: Tickets;
  connections: Connections;
  /** Origins of pages that may connect, besides those of the host that the request names. */
  allowedOrigins: string[];
  /** 0: no limit. */
  messagesPerMinute: number;
  log: Logger;
}

/** For `Bun.serve`: every socket carries its own handlers. */
export const websocket: Bun.WebSocketHandler<SocketHandlers> = {
  maxPayloadLength: SOCKET_LIMITS.frameBytes,
  backpressureLimit: SOCKET_LIMITS.unsentBytes,
  closeOnBackpressureLimit: true,
  // Connections are pinged and ended by ours; Bun's own timeout does not end a dead client that is sent to.
  idleTimeout: 0,
  sendPings: false,
  perMessageDeflate: false,
  open: (socket) => socket.data.open(socket),
  message: (socket, frame) => socket.data.message(socket, frame),
  drain: (socket) => socket.data.drain(socket),
  close: (socket, code, reason) => socket.data.close(socket, code, reason),
  ping: (socket) => socket.data.heartbeat(socket),
  pong: (socket) => socket.data.heartbeat(socket),
};

interface Endpoint {
  /** What of its user's a client says that it comes back to, see `Member`. */
  place?: string | null;
  /** Makes the endpoint's side once it is known who is there; throws AppError to turn the client away. */
  serve(peer: Peer): Channel;
}

/**
 * Makes a WebSocket of a request. Whoever may not connect is connected all the same, told why and closed: a
 * browser can't see an HTTP status.
 *
 * @throws AppError upgrade_required for a request that is no upgrade
 */
export function acceptSocket(
  c: Context<HttpEnv>,
  options: SocketOptions,
  { place = null, serve }: Endpoint,
): Response {
  const protocol = chooseProtocol(c.req.header("sec-websocket-protocol"));
  const connection = new Connection({
    ip: c.get("origin")?.ip ?? "",
    credential: credentialOf({
      authorization: c.req.header("authorization"),
      protocols: c.req.header("sec-websocket-protocol"),
      token: c.req.query("token"),
      ticket: c.req.query("ticket"),
    }),
    place,
    speaksBinary: protocol === BINARY_PROTOCOL,
    refuse: originFault(c, options.allowedOrigins),
    authenticate: options.authenticate,
    tickets: options.tickets,
    connections: options.connections,
    messagesPerMinute: options.messagesPerMinute,
    serve,
    log: options.log,
  });
  const upgraded = c.env.server.upgrade(c.req.raw, {
    data: connection,
    headers: {
      "X-Request-Id": c.get("origin")?.requestId ?? "",
      ...(protocol ? { "Sec-WebSocket-Protocol": protocol } : {}),
    },
  });
  if (!upgraded) throw new AppError("upgrade_required", "A WebSocket upgrade is expected");
  // Bun has answered by itself; this one is only logged.
  return new Response(null, { status: 101 });
}

function originFault(c: Context<HttpEnv>, allowed: string[]): AppError | null {
  try {
    checkOrigin(c.req.header("origin"), c.req.header("host"), allowed);
    return null;
  } catch (error) {
    if (error instanceof AppError) return error;
    throw error;
  }
}
