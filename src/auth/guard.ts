import type { Context, MiddlewareHandler } from "hono";
import { AppError } from "../errors.ts";
import type { Actor, HttpEnv } from "../http/context.ts";
import type { Sessions } from "./sessions.ts";
import { invalidToken, type Tokens } from "./tokens.ts";

export interface Guard {
  /**
   * Who holds this access token. Signature, type, expiry, the session and the user are checked each time:
   * what was revoked a moment ago is refused.
   *
   * @throws AppError unauthenticated
   */
  authenticate(token: string): Promise<Actor>;
  /**
   * Whose token came with the request; undefined without one or with one that is no good. For what must
   * know before the route does: the token is checked once, here or by the middleware below.
   */
  identify(c: Context<HttpEnv>): Promise<Actor | undefined>;
  /** Sets `actor`, or answers 401. */
  requireActor: MiddlewareHandler<HttpEnv>;
  /** Sets `actor`; 401 for nobody, 403 for someone who is not an administrator. */
  requireAdmin: MiddlewareHandler<HttpEnv>;
  /** Sets `actor` when a token came with the request; a bad one is answered 401, none is fine. */
  allowActor: MiddlewareHandler<HttpEnv>;
}

/** Says who is asking; the one door to everything that needs a signed-in user. */
export function createGuard({ tokens, sessions }: { tokens: Tokens; sessions: Sessions }): Guard {
  async function authenticate(token: string): Promise<Actor> {
    const claims = await tokens.verify("access_token", token);
    const actor = sessions.findActor(claims.sid);
    if (!actor || actor.userId !== claims.sub) throw invalidToken();
    return actor;
  }

  function actorOfRequest(c: Context<HttpEnv>): Promise<Actor> {
    const identity = c.get("identity") ?? readIdentity(c);
    c.set("identity", identity);
    return identity;
  }

  async function readIdentity(c: Context<HttpEnv>): Promise<Actor> {
    const token = bearerToken(c);
    if (token === undefined) throw new AppError("unauthenticated", "Not authenticated");
    return authenticate(token);
  }

  return {
    authenticate,
    async identify(c) {
      if (bearerToken(c) === undefined) return undefined;
      return actorOfRequest(c).catch(() => undefined);
    },
    async requireActor(c, next) {
      c.set("actor", await actorOfRequest(c));
      await next();
    },
    async requireAdmin(c, next) {
      const actor = await actorOfRequest(c);
      if (actor.role !== "admin") throw new AppError("forbidden", "Administrator role required");
      c.set("actor", actor);
      await next();
    },
    async allowActor(c, next) {
      if (bearerToken(c) !== undefined) c.set("actor", await actorOfRequest(c));
      await next();
    },
  };
}

/** The credentials of `Authorization: Bearer` (RFC 6750 §2.1); the scheme's case does not matter. */
export function bearerToken(c: Context<HttpEnv>): string | undefined {
  return /^bearer +(\S+) *$/i.exec(c.req.header("authorization") ?? "")?.[1];
}
