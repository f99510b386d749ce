import type { AuditActor } from "../audit/audit.ts";
import type { Origin } from "../http/context.ts";

/**
 * Who an audit row names where nobody is signed in yet: the account that is meant, when it is known.
 * Signed-in requests have `auditActor` of http/audit-actor.ts.
 */
export function actorOf(
  { requestId, ip, userAgent }: Origin,
  user: { id: string; username: string } | undefined,
): AuditActor {
  return { userId: user?.id ?? null, username: user?.username ?? null, ip, userAgent, requestId };
}
