import { and, eq, ne } from "drizzle-orm";
import type { AuditActor } from "../audit/audit.ts";
import type { Tx } from "../db/open.ts";
import { environments } from "../db/schema.ts";
import { type Deadlines, LIFECYCLE, type Verb } from "./lifecycle.ts";
import type { Environment } from "./rows.ts";
import { applyVerb } from "./verbs.ts";

/**
 * Applies a verb to all environments of someone whose account changes, where it is allowed: `delete` when
 * the account is deleted, `suspend` when it is deactivated. Returns each before and after.
 */
export function applyToAll(
  tx: Tx,
  userId: string,
  verb: Verb & ("delete" | "suspend"),
  context: { actor: AuditActor; reason: string; deadlines: Deadlines; now: number },
): { before: Environment; after: Environment }[] {
  return tx
    .select()
    .from(environments)
    .where(and(eq(environments.userId, userId), ne(environments.status, "terminated")))
    .all()
    .filter((row) => LIFECYCLE[row.status].verbs[verb])
    .map((row) => ({ before: row, after: applyVerb(tx, row, verb, context) }));
}
