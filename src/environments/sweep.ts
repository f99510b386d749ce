import { audit, SYSTEM_ACTOR } from "../audit/audit.ts";
import type { Db } from "../db/open.ts";
import { isId } from "../lib/ids.ts";
import type { Logger } from "../lib/logger.ts";
import { type Remains, type Runtime, RuntimeUnreachable } from "../runtime/runtime.ts";
import type { EnvironmentRows } from "./rows.ts";
import { wasMadeHere } from "./servings.ts";

const SWEEP_MS = 5 * 60_000;
/** A suspect is looked at again after this time. */
const CONFIRM_MS = 30_000;

export interface SweepOptions {
  db: Db;
  rows: EnvironmentRows;
  /** Open runtimes by cluster id. */
  runtimes(): ReadonlyMap<string, Runtime>;
  now(): number;
  log: Logger;
}

export interface Sweep {
  /** Looks once. Resolves with the strays that were being removed. */
  run(): Promise<Remains[]>;
  /** Looks every five minutes, and soon again where something was suspected. */
  start(): void;
  stop(): void;
}

/**
 * Finds what carries our labels and belongs to no environment, or to one of which nothing should be left,
 * and removes it. A stray must be seen twice: what is being created at the moment is none. What was made
 * while another database was served is no stray: an older backup was restored, or the database was lost, and
 * somebody's files are in it.
 */
export function createSweep({ db, rows, runtimes, now, log }: SweepOptions): Sweep {
  /** By cluster, what the last look has found there. */
  const suspects = new Map<string, Set<string>>();
  /** Objects being removed, which may take several looks. */
  const reported = new Set<string>();
  /** Environments of another database that were told of. */
  const kept = new Set<string>();
  let timer: Timer | undefined;
  let stopped = false;

  async function sweepCluster(clusterId: string, runtime: Runtime): Promise<Remains[]> {
    const before = suspects.get(clusterId) ?? new Set();
    const left = (await runtime.list()).filter(isLeft);
    const strays = left.filter(isOurs);
    for (const other of left) if (!strays.includes(other)) keep(clusterId, other);
    suspects.set(clusterId, new Set(strays.map(keyOf)));
    const removed = strays.filter((ref) => before.has(keyOf(ref)));
    for (const stray of removed) await runtime.remove(stray, stray.objects);
    return removed;
  }

  /** Whatever cluster the environment is booked on: two registrations may well lead to the same one. */
  function isLeft({ environmentId }: Remains): boolean {
    const row = rows.byId(environmentId);
    return !row || row.tornDownAt !== null;
  }

  /** An empty namespace has no environment's id, and nothing in it that could be lost. */
  function isOurs({ environmentId }: Remains): boolean {
    return !isId(environmentId) || rows.byId(environmentId) !== undefined || wasMadeHere(db, environmentId);
  }

  function keep(clusterId: string, remains: Remains): void {
    if (kept.has(keyOf(remains))) return;
    kept.add(keyOf(remains));
    log.warn(
      "kept what this database does not know: it is of another one, such as the one before a backup was restored",
      { environment_id: remains.environmentId, cluster_id: clusterId, objects: remains.objects },
    );
  }

  function report(clusterId: string, { environmentId, userId, objects }: Remains): void {
    const fresh = objects.filter((object) => !reported.has(`${clusterId} ${object}`));
    if (fresh.length === 0) return;
    for (const object of fresh) reported.add(`${clusterId} ${object}`);
    const detail = { cluster_id: clusterId, owner: userId, objects: fresh };
    log.warn("removing what belongs to no environment", { environment_id: environmentId, ...detail });
    audit(db, SYSTEM_ACTOR, { action: "environment.sweep", targetId: environmentId, detail }, now());
  }

  async function run(): Promise<Remains[]> {
    const found: Remains[] = [];
    for (const [clusterId, runtime] of runtimes()) {
      try {
        for (const stray of await sweepCluster(clusterId, runtime)) {
          report(clusterId, stray);
          found.push(stray);
        }
      } catch (error) {
        if (!(error instanceof RuntimeUnreachable))
          log.warn("sweep failed", { cluster_id: clusterId, error });
      }
    }
    return found;
  }

  async function repeat(): Promise<void> {
    await run();
    if (stopped) return;
    const suspicious = [...suspects.values()].some((found) => found.size > 0);
    if (!suspicious) reported.clear();
    timer = setTimeout(() => void repeat(), suspicious ? CONFIRM_MS : SWEEP_MS);
  }

  return {
    run,
    start: () => void repeat(),
    stop() {
      stopped = true;
      clearTimeout(timer);
    },
  };
}

function keyOf({ environmentId, userId }: Remains): string {
  return `${environmentId}/${userId}`;
}
