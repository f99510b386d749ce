import { and, eq, isNull, ne, sql } from "drizzle-orm";
import { type AuditActor, audit } from "../audit/audit.ts";
import type { Place } from "../clusters/placement.ts";
import { type Db, inTransaction, type Tx } from "../db/open.ts";
import { environments, type Plan, type Resources, type Role, users } from "../db/schema.ts";
import { AppError, invalidField } from "../errors.ts";
import { newId } from "../lib/ids.ts";
import type { ResourceLimits } from "../runtime/runtime.ts";
import { countUse, type Template } from "../templates/templates.ts";
import { type Deadlines, deadlineMs } from "./lifecycle.ts";
import { checkResources, planLimits } from "./plans.ts";
import type { Environment } from "./rows.ts";

export interface CreateRequest {
  name: string;
  description: string | null;
  /** Id or name; null: wherever there is room. */
  cluster: string | null;
  /** What the owner asked for; the rest is the template's. */
  resources: Partial<Resources>;
  variables: Record<string, string>;
}

export interface CreateContext {
  db: Db;
  userId: string;
  auditActor: AuditActor;
  template: Template;
  place: Place;
  /** The owner's address must be verified. */
  mailConfigured: boolean;
  deadlines: Deadlines;
  now: number;
}

/**
 * Takes a new environment into the books: owner, quota, name and cluster are checked and taken in one
 * transaction.
 *
 * @throws AppError forbidden `plan_limit` or `email_unverified`, conflict (name in use), validation (over a
 * ceiling), and those of `currentOwner` and `place`
 */
export function createEnvironment(context: CreateContext, request: CreateRequest): Environment {
  const { db, userId, template, now } = context;
  const resources = { ...template.defaultResources, ...request.resources };
  return inTransaction(db, (tx) => {
    const owner = currentOwner(tx, userId);
    if (context.mailConfigured) checkVerified(owner);
    const limits = checkResources(resources, owner);
    checkQuota(tx, owner);
    checkName(tx, userId, request.name);
    const placement = context.place(tx, limits, request.cluster);
    const row = tx
      .insert(environments)
      .values({
        id: newId(now),
        userId,
        clusterId: placement.clusterId,
        templateId: template.id,
        name: request.name,
        description: request.description,
        templateName: template.name,
        templateDisplayName: template.displayName,
        dockerImage: template.dockerImage,
        port: template.defaultPort,
        startupCommands: template.startupCommands,
        templateVariables: template.environmentVariables,
        capabilities: template.capabilities,
        resources,
        variables: request.variables,
        desired: "running",
        generation: 1,
        status: "creating",
        progress: 0,
        statusSince: now,
        deadlineAt: now + (deadlineMs("creating", context.deadlines) ?? 0),
        createdAt: now,
        updatedAt: now,
      })
      .returning()
      .get();
    countUse(tx, template.id);
    const detail = {
      template: template.name,
      cluster_id: row.clusterId,
      placement: placement.reason,
    };
    audit(tx, context.auditActor, { action: "environment.create", targetId: row.id, detail }, now);
    return row;
  });
}

interface Owner {
  id: string;
  plan: Plan;
  role: Role;
  isVerified: boolean;
}

/**
 * Whoever environments are made for, as they are now and not when the request began.
 *
 * @throws AppError unauthenticated when the account is not active any more
 */
export function currentOwner(tx: Tx, userId: string): Owner {
  const owner = tx
    .select({ id: users.id, plan: users.plan, role: users.role, isVerified: users.isVerified })
    .from(users)
    .where(and(eq(users.id, userId), eq(users.isActive, true), isNull(users.deletedAt)))
    .get();
  if (!owner) throw new AppError("unauthenticated", "Not authenticated");
  return owner;
}

function checkVerified({ isVerified }: Owner): void {
  if (isVerified) return;
  const message = "Verify your email address before you create an environment";
  throw new AppError("forbidden", message, {
    fields: [{ field: "email", message, code: "email_unverified" }],
  });
}

function checkQuota(tx: Tx, owner: Owner): void {
  const limits = planLimits(owner);
  if (!limits) return;
  const living = and(eq(environments.userId, owner.id), ne(environments.status, "terminated"));
  const used = tx.select({ n: sql<number>`count(*)` }).from(environments).where(living).get()?.n ?? 0;
  if (used < limits.environments) return;
  const message = `The ${owner.plan} plan allows ${limits.environments} environment${limits.environments === 1 ? "" : "s"}; you have ${used}`;
  throw new AppError("forbidden", message, {
    fields: [{ field: "subscription_plan", message, code: "plan_limit" }],
  });
}

/** Terminated environments' names are free. */
export function checkName(tx: Tx, userId: string, name: string, exceptId = ""): void {
  const taken = tx
    .select({ id: environments.id })
    .from(environments)
    .where(
      and(
        eq(environments.userId, userId),
        eq(environments.name, name),
        ne(environments.status, "terminated"),
        ne(environments.id, exceptId),
      ),
    )
    .get();
  if (!taken) return;
  const message = `You already have an environment named "${name}"`;
  throw new AppError("conflict", message, { fields: [{ field: "name", message, code: "duplicate" }] });
}

/** @throws AppError validation when the storage asked for is less than there is: volumes don't shrink */
export function checkGrowth(before: ResourceLimits, after: ResourceLimits, current: string): void {
  if (after.storageBytes >= before.storageBytes) return;
  throw invalidField("resources.storage", `cannot shrink below its present ${current}`, "too_small");
}
