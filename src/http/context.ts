import type { Plan, Role } from "../db/schema.ts";

/** Who is asking: the owner of a valid access token whose session lives. */
export interface Actor {
  userId: string;
  sessionId: string;
  username: string;
  email: string;
  role: Role;
  plan: Plan;
  isVerified: boolean;
}

/** Where a request comes from: what audit rows and request lines say of it. */
export interface Origin {
  requestId: string;
  /** Seen through the trusted proxies. */
  ip: string;
  userAgent: string | null;
}

/** What Hono hands to every handler. */
export interface HttpEnv {
  Bindings: {
    /** Bun's server: upgrades, and timeouts of single requests. */
    server: Bun.Server<SocketHandlers>;
    /** The request as Bun knows it, where Hono was given a copy. */
    received?: Request;
  };
  Variables: {
    origin: Origin;
    /** Set by auth/guard.ts on routes that need it; unset elsewhere. */
    actor: Actor;
    /** Something long has passed since `actor` was found, a body at the client's pace for one: guards look again. */
    actorIsStale: boolean;
  };
}

export type ServerSocket = Bun.ServerWebSocket<SocketHandlers>;

/** What a WebSocket carries through Bun's server: the endpoint that accepted it handles its events. */
export interface SocketHandlers {
  open(socket: ServerSocket): void;
  message(socket: ServerSocket, frame: string | Buffer): void;
  drain(socket: ServerSocket): void;
  close(socket: ServerSocket, code: number, reason: string): void;
  /** A ping of the client's came, or the answer to one of ours. */
  heartbeat(socket: ServerSocket): void;
}
