import { eq } from "drizzle-orm";
import { type AuditActor, audit } from "../audit/audit.ts";
import { type Db, inTransaction } from "../db/open.ts";
import { environments, type Resources } from "../db/schema.ts";
import { invalidState, notFound } from "../errors.ts";
import { checkGrowth, checkName, currentOwner } from "./create.ts";
import { checkResources, parseLimits } from "./plans.ts";
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
      checkGrowth(parseLimits(row.resources), checkResources(resources, owner), row.resources.storage);
    }
    const variables = request.variables ?? row.variables;
    const needsContainers =
      !Bun.deepEquals(resources, row.resources) || !Bun.deepEquals(variables, row.variables);
    const changed = tx
      .update(environments)
      .set({
        name: request.name ?? row.name,
        description: request.description ?? row.description,
        resources,
        variables,
        restartRequired: row.restartRequired || needsContainers,
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
