import { and, eq, inArray, lt, or, type SQL, sql } from "drizzle-orm";
import type { Db, DbOrTx } from "../db/open.ts";
import { clusters, environments } from "../db/schema.ts";
import { every } from "../lib/every.ts";
import type { Logger } from "../lib/logger.ts";
import { type Capacity, type Runtime, RuntimeUnreachable } from "../runtime/runtime.ts";

/** A pod is there this long after its environment has begun to be provisioned, on any cluster that works. */
const POD_APPEARS_MS = 5000;

/** What was last seen of a cluster. */
export type Measurement =
  | {
      reachable: true;
      atMs: number;
      capacity: Capacity;
      /** Environments whose requests are in `capacity` already. */
      counted: ReadonlySet<string>;
    }
  | { reachable: false; atMs: number; reason: string };

interface CapacityOptions {
  db: Db;
  runtimeOf(clusterId: string): Runtime;
  now(): number;
  log: Logger;
  /** Told when a cluster can't be reached any more, and when it can again. */
  onReachability?(clusterId: string): void;
  everyMs?: number;
  /** A cluster that has not answered by then counts as unreachable. */
  timeoutMs?: number;
}

/** Measures clusters in the background, so that placement never waits for one. */
export interface CapacityBook {
  /** Undefined: never measured. */
  last(clusterId: string): Measurement | undefined;
  /** Measures now; callers at the same time share one measurement. Never rejects. */
  measure(clusterId: string): Promise<Measurement>;
  forget(clusterId: string): void;
  start(): void;
  /** Answers that come afterwards are not kept: the database may be closed. */
  stop(): void;
}

export function createCapacityBook({
  db,
  runtimeOf,
  now,
  log,
  onReachability,
  everyMs = 15_000,
  timeoutMs = 8000,
}: CapacityOptions): CapacityBook {
  const book = new Map<string, Measurement>();
  const running = new Map<string, Promise<Measurement>>();
  let timer: Timer | undefined;
  let stopped = false;

  async function ask(clusterId: string): Promise<Measurement> {
    // Before the cluster is asked: what has appeared in the meantime is counted twice rather than not at all.
    const counted = alreadyCounted(clusterId);
    try {
      const capacity = await withTimeout(runtimeOf(clusterId).capacity(), timeoutMs);
      return { reachable: true, atMs: now(), capacity, counted };
    } catch (error) {
      const reason =
        error instanceof RuntimeUnreachable ? error.message : "The cluster could not be measured";
      return { reachable: false, atMs: now(), reason };
    }
  }

  function alreadyCounted(clusterId: string): ReadonlySet<string> {
    try {
      return materialised(db, clusterId, now());
    } catch (error) {
      log.error("what a cluster's figures include can't be looked up", { clusterId, error });
      return new Set();
    }
  }

  /** What can't be written now is in the book all the same, and written after the next look. */
  function record(clusterId: string, measurement: Measurement): void {
    const before = book.get(clusterId);
    book.set(clusterId, measurement);
    try {
      tell(clusterId, measurement, before);
    } catch (error) {
      log.error("a cluster's figures can't be written", { clusterId, error });
    }
  }

  function tell(clusterId: string, measurement: Measurement, before: Measurement | undefined): void {
    if (!measurement.reachable) {
      if (before?.reachable === false) return;
      log.warn("cluster unreachable", { clusterId, reason: measurement.reason });
      onReachability?.(clusterId);
      return;
    }
    if (before?.reachable === false) {
      log.info("cluster reachable again", { clusterId });
      onReachability?.(clusterId);
    }
    const nodeCount = measurement.capacity.nodes;
    const changed = and(eq(clusters.id, clusterId), sql`${clusters.nodeCount} is not ${nodeCount}`);
    db.update(clusters).set({ nodeCount }).where(changed).run();
  }

  function measure(clusterId: string): Promise<Measurement> {
    const already = running.get(clusterId);
    if (already) return already;
    const one = ask(clusterId).then((measurement) => {
      // Forgotten meanwhile: the answer is of a cluster, or a kubeconfig, that is no more.
      if (running.get(clusterId) === one && !stopped) {
        running.delete(clusterId);
        record(clusterId, measurement);
      }
      return measurement;
    });
    running.set(clusterId, one);
    return one;
  }

  function measureAll(): void {
    for (const { id } of db.select({ id: clusters.id }).from(clusters).all()) void measure(id);
  }

  return {
    last: (clusterId) => book.get(clusterId),
    measure,
    forget(clusterId) {
      running.delete(clusterId);
      book.delete(clusterId);
    },
    start() {
      measureAll();
      timer ??= every(everyMs, measureAll, (error) => log.error("clusters can't be measured", { error }));
      timer.unref();
    },
    stop() {
      stopped = true;
      clearInterval(timer);
    },
  };
}

/**
 * Whether an environment is on the cluster `clusterId`: one that is registered twice is measured twice, each
 * time with all that is on it.
 */
export function isOnCluster(db: DbOrTx, clusterId: string): SQL {
  const uid = db.select({ uid: clusters.uid }).from(clusters).where(eq(clusters.id, clusterId));
  // Those that are not identified are equal to none, not even to each other.
  const same = or(eq(clusters.id, clusterId), eq(clusters.uid, uid));
  return inArray(environments.clusterId, db.select({ id: clusters.id }).from(clusters).where(same));
}

/** Environments whose pods are surely among what the cluster counts at `now`. */
function materialised(db: Db, clusterId: string, now: number): ReadonlySet<string> {
  const rows = db
    .select({ id: environments.id })
    .from(environments)
    .where(
      and(
        isOnCluster(db, clusterId),
        or(
          inArray(environments.status, ["installing", "configuring", "running"]),
          and(eq(environments.status, "provisioning"), lt(environments.statusSince, now - POD_APPEARS_MS)),
        ),
      ),
    )
    .all();
  return new Set(rows.map((row) => row.id));
}

async function withTimeout<T>(work: Promise<T>, timeoutMs: number): Promise<T> {
  let timer: Timer | undefined;
  const late = new Promise<never>((_, reject) => {
    const message = `The cluster did not answer within ${Math.round(timeoutMs / 1000)} seconds`;
    timer = setTimeout(() => reject(new RuntimeUnreachable(message)), timeoutMs);
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}
