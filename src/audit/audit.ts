import type { DbOrTx } from "../db/open.ts";
import { auditLog } from "../db/schema.ts";
import { newId } from "../lib/ids.ts";

/** Who did it and from where; null for what DevPocket does by itself. */
export interface AuditActor {
  userId: string | null;
  username: string | null;
  ip: string | null;
  userAgent: string | null;
  requestId: string | null;
}

export const SYSTEM_ACTOR: AuditActor = {
  userId: null,
  username: null,
  ip: null,
  userAgent: null,
  requestId: null,
};

export interface AuditEntry {
  /** `noun.verb`: "environment.create", "auth.login". */
  action: string;
  targetId?: string;
  outcome?: "success" | "failure";
  /** Never a secret, nor the name of what is somebody's own: rows outlive accounts. */
  detail?: Record<string, unknown>;
}

/** Writes one audit row inside the caller's transaction: the change and its trace stand or fall together. */
export function audit(tx: DbOrTx, actor: AuditActor, entry: AuditEntry, now: number): void {
  tx.insert(auditLog)
    .values({
      id: newId(now),
      at: now,
      ...actor,
      action: entry.action,
      targetId: entry.targetId ?? null,
      outcome: entry.outcome ?? "success",
      detail: entry.detail ?? {},
    })
    .run();
}
