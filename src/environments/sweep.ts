import { audit, SYSTEM_ACTOR } from "../audit/audit.ts";
import type { Db } from "../db/open.ts";
import type { Logger } from "../lib/logger.ts";
import { type EnvironmentRef, type Runtime, RuntimeUnreachable } from "../runtime/runtime.ts";
import type { EnvironmentRows } from "./rows.ts";

const SWEEP_MS = 5 * 60_000;

export interface SweepOptions {
  db: Db;
  rows: EnvironmentRows;
  /** Open runtimes by cluster id. */
  runtimes(): ReadonlyMap<string, Runtime>;
  now(): number;
  log: Logger;
}

export interface Sweep {
  /** Looks once; `start` does so every five minutes. Resolves with the strays that were being removed. */
  run(): Promise<EnvironmentRef[]>;
  start(): void;
  stop(): void;
}

/**
 * Finds what carries our labels and belongs to no environment, or to one of which nothing should be left,
 * and removes it. A stray must be seen twice: what is being created at the moment is none.
 */
export function createSweep({ db, rows, runtimes, now, log }: SweepOptions): Sweep {
  const suspects = new Set<string>();
  let timer: Timer | undefined;

  async function sweepCluster(clusterId: string, runtime: Runtime): Promise<EnvironmentRef[]> {
    const removed: EnvironmentRef[] = [];
    for (const ref of await runtime.list()) {
      const key = `${clusterId}/${ref.environmentId}`;
      const row = rows.byId(ref.environmentId);
      if (row && row.clusterId === clusterId && row.tornDownAt === null) suspects.delete(key);
      else if (!suspects.has(key)) suspects.add(key);
      else {
        await runtime.remove(ref);
        removed.push(ref);
      }
    }
    return removed;
  }

  function report(clusterId: string, { environmentId, userId }: EnvironmentRef): void {
    log.warn("removing what belongs to no environment", {
      environment_id: environmentId,
      cluster_id: clusterId,
    });
    const detail = { cluster_id: clusterId, owner: userId };
    audit(db, SYSTEM_ACTOR, { action: "environment.sweep", targetId: environmentId, detail }, now());
  }

  async function run(): Promise<EnvironmentRef[]> {
    const found: EnvironmentRef[] = [];
    for (const [clusterId, runtime] of runtimes()) {
      try {
        for (const ref of await sweepCluster(clusterId, runtime)) {
          report(clusterId, ref);
          found.push(ref);
        }
      } catch (error) {
        if (!(error instanceof RuntimeUnreachable))
          log.warn("sweep failed", { cluster_id: clusterId, error });
      }
    }
    return found;
  }

  return {
    run,
    start() {
      void run();
      timer = setInterval(() => void run(), SWEEP_MS);
    },
    stop: () => clearInterval(timer),
  };
}
