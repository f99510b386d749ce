import { eq } from "drizzle-orm";
import { type AuditActor, audit } from "../audit/audit.ts";
import { type Db, inTransaction } from "../db/open.ts";
import { environments, type Resources } from "../db/schema.ts";
import { invalidState, notFound } from "../errors.ts";
import { checkGrowth, checkName, currentOwner } from "./create.ts";
import { checkResources, parseLimits, sameResources } from "./plans.ts";
import type { Environment, EnvironmentRows } from "./rows.ts";

export interface UpdateRequest {
  name?: string;
  description?: string;
  resources?: Partial<Resources>;
  /** Replaces the whole map. */
  variables?: Record<string, string>;
}

interface UpdateContext {
  db: Db;
  rows: EnvironmentRows;
  userId: string;
  auditActor: AuditActor;
  now: number;
}

/**
 * Saves an edit at once. What needs new containers waits for the next start or restart: a user's processes
 * are never killed by an edit.
 */
export function updateEnvironment(context: UpdateContext, id: string, request: UpdateRequest): Environment {
  const { db, rows, userId, now } = context;
  return inTransaction(db, (tx) => {
    const owner = currentOwner(tx, userId);
    const row = rows.owned(id, userId);
    if (!row) throw notFound("Environment");
    if (row.status === "terminated") {
      throw invalidState("Cannot update environment in current state", "Environment must not be terminated");
    }
    if (request.name !== undefined) checkName(tx, userId, request.name, row.id);
    const resources = { ...row.resources, ...request.resources };
    if (request.resources) {
      const before = parseLimits(row.resources);
      // Growth first: that storage can't shrink is no matter of the plan.
      checkGrowth(before, parseLimits(resources), row.resources.storage);
      checkResources(resources, owner, before);
    }
    const variables = request.variables ?? row.variables;
    // Whether resources wait is seen by those that were applied, once there are any.
    const waits =
      !Bun.deepEquals(variables, row.variables) ||
      (row.appliedResources === null && !sameResources(resources, row.resources));
    const changed = tx
      .update(environments)
      .set({
        name: request.name ?? row.name,
        description: request.description ?? row.description,
        resources,
        variables,
        restartRequired: row.restartRequired || waits,
        updatedAt: now,
      })
      .where(eq(environments.id, row.id))
      .returning()
      .get();
    const fields = Object.entries(request).flatMap(([field, value]) => (value === undefined ? [] : [field]));
    audit(
      tx,
      context.auditActor,
      { action: "environment.update", targetId: row.id, detail: { fields } },
      now,
    );
    return changed;
  });
}
