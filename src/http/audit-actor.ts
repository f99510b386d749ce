import type { Context } from "hono";
import type { AuditActor } from "../audit/audit.ts";
import type { HttpEnv, Origin } from "./context.ts";

/** Who is behind a request, for its audit rows; without a name where nobody is signed in. */
export function auditActor(c: Context<HttpEnv>): AuditActor {
  // Unset on routes without the guard, whatever the type of Variables says.
  const actor: HttpEnv["Variables"]["actor"] | undefined = c.get("actor");
  return actorOf(c.get("origin"), actor && { id: actor.userId, username: actor.username });
}

/** The same where nobody is signed in yet: of the account that is meant, when it is known. */
export function actorOf(
  { requestId, ip, userAgent }: Origin,
  user: { id: string; username: string } | undefined,
): AuditActor {
  return { userId: user?.id ?? null, username: user?.username ?? null, ip, userAgent, requestId };
}
