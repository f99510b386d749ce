import { and, desc, eq, isNull, ne, notInArray, or, sql } from "drizzle-orm";
import type { Db, DbOrTx } from "../db/open.ts";
import { ENVIRONMENT_STATUSES, type EnvironmentStatus, environments, users } from "../db/schema.ts";
import { lazily } from "../lib/lazily.ts";
import type { EnvironmentRef, EnvironmentSpec } from "../runtime/runtime.ts";
import { parseLimits, sameResources, userQuota } from "./plans.ts";

export type Environment = typeof environments.$inferSelect;

/** What clients see of an environment: lists read no more, for every value of every row costs. */
const SHOWN = {
  id: environments.id,
  clusterId: environments.clusterId,
  templateId: environments.templateId,
  name: environments.name,
  description: environments.description,
  templateDisplayName: environments.templateDisplayName,
  dockerImage: environments.dockerImage,
  port: environments.port,
  resources: environments.resources,
  appliedResources: environments.appliedResources,
  variables: environments.variables,
  status: environments.status,
  statusMessage: environments.statusMessage,
  unreachableSince: environments.unreachableSince,
  progress: environments.progress,
  installationCompleted: environments.installationCompleted,
  restartRequired: environments.restartRequired,
  startedAt: environments.startedAt,
  lastActivity: environments.lastActivity,
  cpuUsage: environments.cpuUsage,
  memoryUsage: environments.memoryUsage,
  storageUsage: environments.storageUsage,
  createdAt: environments.createdAt,
  updatedAt: environments.updatedAt,
};
export type ShownEnvironment = Pick<Environment, keyof typeof SHOWN>;

/** A page of a list, and how long the whole is. */
export interface EnvironmentPage {
  rows: ShownEnvironment[];
  total: number;
}

export function refOf(row: Environment): EnvironmentRef {
  return { environmentId: row.id, userId: row.userId };
}

/** Why it is as it is, in words: during an outage that, but for what is over, whose reason is its own. */
export function messageOf({
  status,
  statusMessage,
  unreachableSince,
}: Pick<Environment, "status" | "statusMessage" | "unreachableSince">): string | null {
  const over = status === "stopped" || status === "error" || status === "terminated";
  if (over || unreachableSince === null) return statusMessage;
  return "The cluster can't be reached; the environment goes on when it is back";
}

/** Whether an edit waits for the next start or restart. */
export function waitsForRestart({
  restartRequired,
  resources,
  appliedResources,
}: Pick<Environment, "restartRequired" | "resources" | "appliedResources">): boolean {
  return restartRequired || (appliedResources !== null && !sameResources(resources, appliedResources));
}

export type EnvironmentRows = ReturnType<typeof environmentRows>;

/** The prepared reads of environments. */
export function environmentRows(db: Db) {
  const byId = lazily(() =>
    db
      .select()
      .from(environments)
      .where(eq(environments.id, sql.placeholder("id")))
      .prepare(),
  );
  const clusterOf = lazily(() =>
    db
      .select({ clusterId: environments.clusterId })
      .from(environments)
      .where(eq(environments.id, sql.placeholder("id")))
      .prepare(),
  );
  const owned = lazily(() =>
    db
      .select()
      .from(environments)
      .where(
        and(eq(environments.id, sql.placeholder("id")), eq(environments.userId, sql.placeholder("userId"))),
      )
      .prepare(),
  );
  const living = and(
    eq(environments.userId, sql.placeholder("userId")),
    ne(environments.status, "terminated"),
  );
  const livingPage = lazily(() =>
    db
      .select(SHOWN)
      .from(environments)
      .where(living)
      .orderBy(desc(environments.id))
      .limit(sql.placeholder("limit"))
      .offset(sql.placeholder("offset"))
      .prepare(),
  );
  const livingCount = lazily(() =>
    db.select({ n: sql<number>`count(*)` }).from(environments).where(living).prepare(),
  );
  const countByStatus = lazily(() =>
    db
      .select({ status: environments.status, n: sql<number>`count(*)` })
      .from(environments)
      .groupBy(environments.status)
      .prepare(),
  );
  const unfinished = lazily(() =>
    db
      .select({ id: environments.id })
      .from(environments)
      .where(
        or(
          notInArray(environments.status, ["stopped", "terminated"]),
          and(eq(environments.status, "terminated"), isNull(environments.tornDownAt)),
        ),
      )
      .prepare(),
  );
  const running = lazily(() =>
    db.select({ id: environments.id }).from(environments).where(eq(environments.status, "running")).prepare(),
  );
  const unfinishedOn = lazily(() =>
    db
      .select({ id: environments.id })
      .from(environments)
      .where(
        and(
          eq(environments.clusterId, sql.placeholder("clusterId")),
          ne(environments.status, "stopped"),
          isNull(environments.tornDownAt),
        ),
      )
      .prepare(),
  );
  const peersEnding = lazily(() =>
    db
      .select({ id: environments.id })
      .from(environments)
      .where(
        and(
          eq(environments.userId, sql.placeholder("userId")),
          eq(environments.clusterId, sql.placeholder("clusterId")),
          ne(environments.id, sql.placeholder("id")),
          or(
            eq(environments.status, "stopping"),
            and(eq(environments.status, "terminated"), isNull(environments.tornDownAt)),
          ),
        ),
      )
      .limit(1)
      .prepare(),
  );
  const owner = lazily(() =>
    db
      .select({ plan: users.plan, role: users.role })
      .from(users)
      .where(eq(users.id, sql.placeholder("id")))
      .prepare(),
  );

  return {
    byId: (id: string): Environment | undefined => byId().get({ id }),
    clusterOf: (id: string): string | undefined => clusterOf().get({ id })?.clusterId,
    owned: (id: string, userId: string): Environment | undefined => owned().get({ id, userId }),
    /** The default list: everything that is not terminated, newest first. */
    living(userId: string, page: { limit: number; offset: number }): EnvironmentPage {
      const rows = livingPage().all({ userId, ...page });
      const all = page.offset === 0 && rows.length < page.limit;
      return { rows, total: all ? rows.length : (livingCount().get({ userId })?.n ?? 0) };
    },
    /** Ids of all that may have something to do: passing, running, to be released, to be torn down. */
    unfinished: (): string[] =>
      unfinished()
        .all()
        .map((row) => row.id),
    /** The same of one cluster. */
    unfinishedOn: (clusterId: string): string[] =>
      unfinishedOn()
        .all({ clusterId })
        .map((row) => row.id),
    /** Ids of all that run. */
    running: (): string[] =>
      running()
        .all()
        .map((row) => row.id),
    /** How many there are of each status, zeros too. */
    countByStatus(): Record<string, number> {
      const counts = new Map(
        countByStatus()
          .all()
          .map(({ status, n }) => [status, n]),
      );
      return Object.fromEntries(ENVIRONMENT_STATUSES.map((status) => [status, counts.get(status) ?? 0]));
    },
    /** Whether something else of the same user on the same cluster is about to make room. */
    peersEnding: (row: Environment): boolean => peersEnding().get(row) !== undefined,
    /** What the runtime is told of `row`. */
    spec(row: Environment): EnvironmentSpec {
      const plan = owner().get({ id: row.userId });
      return {
        ...refOf(row),
        name: row.name,
        generation: row.generation,
        image: row.dockerImage,
        startupCommands: row.startupCommands,
        variables: { ...row.templateVariables, ...row.variables },
        resources: parseLimits(row.resources),
        port: row.port,
        capabilities: row.capabilities,
        userQuota: plan ? userQuota(plan) : null,
      };
    },
  };
}

/**
 * Pages through a user's environments by filter.
 *
 * @param status undefined: all but terminated
 */
export function filterEnvironments(
  db: DbOrTx,
  filter: { userId: string; status?: EnvironmentStatus; templateId?: string },
  page: { limit: number; offset: number },
): EnvironmentPage {
  const where = and(
    eq(environments.userId, filter.userId),
    filter.status ? eq(environments.status, filter.status) : ne(environments.status, "terminated"),
    filter.templateId ? eq(environments.templateId, filter.templateId) : undefined,
  );
  return {
    rows: db
      .select(SHOWN)
      .from(environments)
      .where(where)
      .orderBy(desc(environments.id))
      .limit(page.limit)
      .offset(page.offset)
      .all(),
    total: db.select({ n: sql<number>`count(*)` }).from(environments).where(where).get()?.n ?? 0,
  };
}
