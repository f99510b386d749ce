import { AppError } from "../../src/errors.ts";
import type { Actor } from "../../src/http/context.ts";
import { answerError } from "../../src/http/errors.ts";
import { newRouter } from "../../src/http/router.ts";
import { createLogger } from "../../src/lib/logger.ts";
import { acceptSocket, type SocketOptions, websocket } from "../../src/sockets/accept.ts";
import type { Channel, Peer } from "../../src/sockets/connection.ts";
import { Connections } from "../../src/sockets/connections.ts";
import { Tickets } from "../../src/sockets/tickets.ts";

export const quiet = createLogger({ format: "text", level: "error", write: () => {} });

export function actor(userId = "ada", sessionId = `session-of-${userId}`): Actor {
  return {
    userId,
    sessionId,
    username: userId,
    email: `${userId}@example.org`,
    role: "user",
    plan: "free",
    isVerified: true,
  };
}

/** Tokens of the tests are `token-USER`. */
export async function authenticate(token: string): Promise<Actor> {
  const user = /^token-(\w+)$/.exec(token)?.[1];
  if (!user) throw new AppError("unauthenticated", "Could not validate credentials");
  return actor(user);
}

export function socketOptions(options: Partial<SocketOptions> = {}): SocketOptions {
  return {
    authenticate,
    tickets: new Tickets(),
    connections: new Connections({ perUser: 10 }),
    allowedOrigins: [],
    messagesPerMinute: 100,
    log: quiet,
    ...options,
  };
}

/** A real server with one endpoint, `/ws`, behind the sockets' shared skin. */
export function serveEndpoint(serve: (peer: Peer) => Channel, options: Partial<SocketOptions> = {}) {
  const all = socketOptions(options);
  const router = newRouter();
  router.onError(answerError(quiet));
  router.get("/ws", (c) => acceptSocket(c, all, { serve }));
  const server = Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    fetch: (request, bun) => router.fetch(request, { server: bun }),
    websocket,
  });
  return {
    ...all,
    url: `ws://127.0.0.1:${server.port}/ws`,
    httpUrl: `http://127.0.0.1:${server.port}/ws`,
    origin: `http://127.0.0.1:${server.port}`,
    [Symbol.asyncDispose]: async () => {
      all.connections.shutDown();
      await server.stop(true);
    },
  };
}
