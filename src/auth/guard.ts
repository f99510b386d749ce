import type { Context, MiddlewareHandler } from "hono";
import { AppError } from "../errors.ts";
import { bearerToken } from "../http/bearer.ts";
import type { Actor, HttpEnv } from "../http/context.ts";
import type { Sessions } from "./sessions.ts";
import { type Claims, invalidToken, type Tokens } from "./tokens.ts";

export interface Guard {
  /**
   * Who holds this access token. Signature, type, expiry, the session and the user are checked each time:
   * what was revoked a moment ago is refused.
   *
   * @throws AppError unauthenticated
   */
  authenticate(token: string): Promise<Actor>;
  /**
   * Who holds the request's token, for whoever must know before the route's own guard does; what is found
   * is kept as `actor`. Undefined without a token, or with one that is no good.
   */
  identify(c: Context<HttpEnv>): Actor | undefined | Promise<Actor | undefined>;
  /** Sets `actor`, or answers 401. */
  requireActor: MiddlewareHandler<HttpEnv>;
  /** Sets `actor`; 401 for nobody, 403 for someone who is not an administrator. */
  requireAdmin: MiddlewareHandler<HttpEnv>;
  /**
   * For a route that has waited long for something: whether who asks still is an administrator.
   *
   * @throws AppError unauthenticated, forbidden
   */
  confirmAdmin(c: Context<HttpEnv>): Promise<void>;
  /**
   * The same where only the body says whether somebody must be known.
   *
   * @throws AppError unauthenticated
   */
  actorOf(c: Context<HttpEnv>): Promise<Actor>;
}

/** Says who is asking; the one door to everything that needs a signed-in user. */
export function createGuard({ tokens, sessions }: { tokens: Tokens; sessions: Sessions }): Guard {
  async function authenticate(token: string): Promise<Actor> {
    const actor = living(tokens.recall(token) ?? (await tokens.verify("access_token", token)));
    if (!actor) throw invalidToken();
    return actor;
  }

  /** The token may be remembered; whether its session lives is looked up each time. */
  function living({ sid, sub }: Claims): Actor | undefined {
    const actor = sessions.findActor(sid);
    return actor?.userId === sub ? actor : undefined;
  }

  async function requireActorOf(c: Context<HttpEnv>): Promise<Actor> {
    const found = actorSoFar(c);
    if (found) return found;
    const token = bearerToken(c.req.header("authorization"));
    if (token === undefined) throw new AppError("unauthenticated", "Not authenticated");
    const actor = await authenticate(token);
    c.set("actor", actor);
    c.set("actorIsStale", false);
    return actor;
  }

  async function checkAdmin(c: Context<HttpEnv>): Promise<void> {
    const { role } = await requireActorOf(c);
    if (role !== "admin") throw new AppError("forbidden", "Administrator role required");
  }

  return {
    authenticate,
    identify(c) {
      const token = bearerToken(c.req.header("authorization"));
      if (token === undefined) return undefined;
      const claims = tokens.recall(token);
      if (!claims) return requireActorOf(c).catch(orNobody);
      const actor = living(claims);
      if (actor) c.set("actor", actor);
      return actor;
    },
    async requireActor(c, next) {
      await requireActorOf(c);
      await next();
    },
    async requireAdmin(c, next) {
      await checkAdmin(c);
      await next();
    },
    async confirmAdmin(c) {
      c.set("actorIsStale", true);
      await checkAdmin(c);
    },
    actorOf: requireActorOf,
  };
}

/** Unset before the first that asks, whatever the type of Variables says. */
function actorSoFar(c: Context<HttpEnv>): Actor | undefined {
  return c.get("actorIsStale") ? undefined : c.get("actor");
}

/** The guard of the route will say it; a failing database is no bad token. */
function orNobody(error: unknown): undefined {
  if (error instanceof AppError) return undefined;
  throw error;
}
