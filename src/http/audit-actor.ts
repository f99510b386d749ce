import type { Context } from "hono";
import type { AuditActor } from "../audit/audit.ts";
import type { HttpEnv } from "./context.ts";

/** Who is behind a request, for its audit rows; without a name where nobody is signed in. */
export function auditActor(c: Context<HttpEnv>): AuditActor {
  const { requestId, ip, userAgent } = c.get("origin");
  // Unset on routes without the guard, whatever the type of Variables says.
  const actor: HttpEnv["Variables"]["actor"] | undefined = c.get("actor");
  return { userId: actor?.userId ?? null, username: actor?.username ?? null, ip, userAgent, requestId };
}
