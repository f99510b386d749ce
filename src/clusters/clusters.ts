import { and, count, desc, eq, isNotNull, isNull, ne, or } from "drizzle-orm";
import { type AuditActor, audit } from "../audit/audit.ts";
import { type Db, type DbOrTx, inTransaction, type Tx } from "../db/open.ts";
import {
  type CLUSTER_STATUSES,
  type ClusterOrigin,
  clusters,
  environments,
  LOCAL_PROVIDER,
} from "../db/schema.ts";
import { AppError, notFound } from "../errors.ts";
import { newId } from "../lib/ids.ts";
import { LOCAL_CLUSTER_NAME } from "./local.ts";
import type { Vault } from "./vault.ts";

export type Cluster = typeof clusters.$inferSelect;

type Environment = typeof environments.$inferSelect;

/** An environment that has ended with its cluster. */
export interface GivenUp {
  before: Environment;
  after: Environment;
}

export interface ClusterValues {
  name: string;
  description: string | null;
  provider: string;
  region: string;
  access: ClusterAccess;
  status: (typeof CLUSTER_STATUSES)[number];
  /** Null: an administrator. */
  origin?: ClusterOrigin | null;
}

/** How a cluster is reached. */
export interface ClusterAccess {
  /** Reduced. */
  kubeconfig: string;
  /** Which cluster it leads to, as vetting has found; null: it has not been vetted yet. */
  uid: string | null;
}

export type ClusterChange = Partial<Omit<ClusterValues, "provider" | "origin">>;

interface Change {
  db: Db;
  vault: Vault;
  actor: AuditActor;
  now: number;
}

/** @param ref id or name */
export function findCluster(db: DbOrTx, ref: string): Cluster | undefined {
  return db
    .select()
    .from(clusters)
    .where(or(eq(clusters.id, ref), eq(clusters.name, ref)))
    .get();
}

export function hasKubernetesClusters(db: Db): boolean {
  return (
    db.select({ id: clusters.id }).from(clusters).where(isNotNull(clusters.kubeconfig)).get() !== undefined
  );
}

/** The one that the server has registered by itself, whatever its name is now. */
export function findOwnCluster(db: DbOrTx, origin: ClusterOrigin): Cluster | undefined {
  return db.select().from(clusters).where(eq(clusters.origin, origin)).get();
}

/** Newest first. */
export function listClusters(
  db: DbOrTx,
  page: { limit: number; offset: number },
): { rows: Cluster[]; total: number } {
  return {
    rows: db.select().from(clusters).orderBy(desc(clusters.id)).limit(page.limit).offset(page.offset).all(),
    total: db.select({ n: count() }).from(clusters).get()?.n ?? 0,
  };
}

/** @throws AppError conflict when another cluster has the name, or it is kept for the local one */
export function checkName(db: DbOrTx, name: string, exceptId = ""): void {
  const other = and(eq(clusters.name, name), ne(clusters.id, exceptId));
  const taken = db.select({ id: clusters.id }).from(clusters).where(other).get();
  if (!taken && name !== LOCAL_CLUSTER_NAME) return;
  const message = `A cluster named "${name}" already exists`;
  throw new AppError("conflict", message, { fields: [{ field: "name", message, code: "duplicate" }] });
}

/** @throws AppError conflict, see `checkName` */
export function createCluster(
  { db, vault, actor, now }: Change,
  { access, ...values }: ClusterValues,
): Cluster {
  return inTransaction(db, (tx) => {
    checkName(tx, values.name);
    const id = newId(now);
    const row = tx
      .insert(clusters)
      .values({ ...values, id, ...seal(vault, id, access), createdAt: now, updatedAt: now })
      .returning()
      .get();
    const detail = { name: row.name, provider: row.provider, region: row.region };
    audit(tx, actor, { action: "cluster.create", targetId: id, detail }, now);
    return row;
  });
}

/**
 * Of the local cluster, only description, region and status can change.
 *
 * @throws AppError not_found, conflict (the name, and see `checkIdentity`), invalid (what the local cluster
 *   does not have)
 */
export function updateCluster(
  { db, vault, actor, now }: Change,
  id: string,
  { access, ...change }: ClusterChange,
): Cluster {
  return inTransaction(db, (tx) => {
    const before = tx.select().from(clusters).where(eq(clusters.id, id)).get();
    if (!before) throw notFound("Cluster");
    if (change.name !== undefined && change.name !== before.name) {
      if (before.provider === LOCAL_PROVIDER) throw notOfLocal("name", "The local cluster can't be renamed");
      checkName(tx, change.name, id);
    }
    if (access && before.provider === LOCAL_PROVIDER) {
      throw notOfLocal("kubeconfig", "The local cluster has no kubeconfig");
    }
    if (access) checkIdentity(tx, before, access.uid);
    const row = tx
      .update(clusters)
      .set({ ...change, ...(access && seal(vault, id, access)), updatedAt: now })
      .where(eq(clusters.id, id))
      .returning()
      .get();
    const detail = { name: row.name, fields: [...Object.keys(change), ...(access ? ["kubeconfig"] : [])] };
    audit(tx, actor, { action: "cluster.update", targetId: id, detail }, now);
    return row;
  });
}

/**
 * Notes which cluster it is that a kubeconfig which is kept already leads to.
 *
 * @throws AppError conflict, see `checkIdentity`
 */
export function identifyCluster(db: Db, id: string, uid: string): void {
  inTransaction(db, (tx) => {
    const before = tx.select().from(clusters).where(eq(clusters.id, id)).get();
    if (!before) return;
    checkIdentity(tx, before, uid);
    if (before.uid !== uid) tx.update(clusters).set({ uid }).where(eq(clusters.id, id)).run();
  });
}

/**
 * What lives on one cluster would be made anew, with empty workspaces, on the other, and stay on the first
 * for ever.
 *
 * @throws AppError conflict when environments live there, on a cluster with another UID
 */
function checkIdentity(tx: Tx, before: Cluster, uid: string | null): void {
  if (before.uid === null || before.uid === uid) return;
  const living = livingOn(tx, before.id).length;
  if (living > 0) throw elsewhere(living);
}

function seal(vault: Vault, id: string, { kubeconfig, uid }: ClusterAccess) {
  return { kubeconfig: vault.seal(kubeconfig, id), uid };
}

/** Environments of which something may be there. */
export function livingOn(db: DbOrTx, clusterId: string) {
  return db
    .select()
    .from(environments)
    .where(and(eq(environments.clusterId, clusterId), isNull(environments.tornDownAt)))
    .all();
}

/**
 * Takes a cluster off the books. With `force` the environments that live there go with it: nothing can be
 * torn down in a cluster that is gone for good.
 *
 * @returns the environments that were given up
 * @throws AppError not_found; conflict for the local cluster, and while environments live there
 */
export function deleteCluster(
  { db, actor, now }: Omit<Change, "vault">,
  id: string,
  { force }: { force: boolean },
): GivenUp[] {
  return inTransaction(db, (tx) => {
    const row = tx.select().from(clusters).where(eq(clusters.id, id)).get();
    if (!row) throw notFound("Cluster");
    if (row.provider === LOCAL_PROVIDER) {
      throw new AppError("conflict", "The local cluster can't be deleted; LOCAL_RUNTIME=off switches it off");
    }
    const living = livingOn(tx, id);
    if (living.length > 0 && !force) throw inUse(living.length);
    const givenUp = living.map((before) => ({ before, after: giveUp(tx, before, row.name, actor, now) }));
    tx.delete(clusters).where(eq(clusters.id, id)).run();
    const detail = { name: row.name, environments: living.length, forced: force };
    audit(tx, actor, { action: "cluster.delete", targetId: id, detail }, now);
    return givenUp;
  });
}

function giveUp(
  tx: Tx,
  environment: Environment,
  clusterName: string,
  actor: AuditActor,
  now: number,
): Environment {
  const reason = `Its cluster "${clusterName}" was removed`;
  const ended = environment.status === "terminated" ? {} : { terminatedAt: now, statusSince: now };
  const gone = tx
    .update(environments)
    .set({
      desired: "terminated",
      // Whoever waits for a verb's end sees that another came after it.
      generation: environment.generation + 1,
      status: "terminated",
      statusMessage: reason,
      progress: 0,
      deadlineAt: null,
      unreachableSince: null,
      startedAt: null,
      tornDownAt: now,
      updatedAt: now,
      ...ended,
    })
    .where(eq(environments.id, environment.id))
    .returning()
    .get();
  const detail = { from: environment.status, to: "terminated", reason };
  audit(tx, actor, { action: "environment.delete", targetId: environment.id, detail }, now);
  return gone;
}

function inUse(living: number): AppError {
  return new AppError("conflict", `${inhabitants(living)} on this cluster: delete them first, or force it`);
}

function elsewhere(living: number): AppError {
  const message = `The kubeconfig leads to another cluster, and ${inhabitants(living)} on this one: delete them first`;
  return new AppError("conflict", message, {
    fields: [{ field: "kubeconfig", message, code: "another_cluster" }],
  });
}

function inhabitants(living: number): string {
  return living === 1 ? "1 environment lives" : `${living} environments live`;
}

function notOfLocal(field: string, message: string): AppError {
  return new AppError("invalid", message, { fields: [{ field, message, code: "immutable" }] });
}
