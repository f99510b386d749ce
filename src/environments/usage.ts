import { eq } from "drizzle-orm";
import type { Db } from "../db/open.ts";
import { environments } from "../db/schema.ts";
import type { Logger } from "../lib/logger.ts";
import { Semaphore } from "../lib/semaphore.ts";
import { type Runtime, RuntimeUnreachable, type Usage } from "../runtime/runtime.ts";
import { parseLimits } from "./plans.ts";
import { type Environment, type EnvironmentRows, refOf } from "./rows.ts";

/** How often what runs is measured for the lists. */
const SAMPLE_MS = 60_000;
/** A measurement younger than this answers again: a client that polls costs no more. */
const FRESH_MS = 2000;
const SAMPLES_AT_A_TIME = 4;

export interface Measurement {
  /** Percent of the limits that its containers were made with; null: not known. */
  cpu: number | null;
  memory: number | null;
  storage: number | null;
  networkRxBytes: number | null;
  networkTxBytes: number | null;
  uptimeSeconds: number;
  atMs: number;
}

export interface UsageMeter {
  /** Measures now, or gives what was measured a moment ago; a runtime out of reach: what was last stored. */
  measure(row: Environment): Promise<Measurement>;
  /** Begins to measure all that runs, once a minute. */
  start(): void;
  stop(): void;
}

interface UsageOptions {
  db: Db;
  rows: EnvironmentRows;
  runtimeOf(clusterId: string): Runtime;
  now(): number;
  log: Logger;
  everyMs?: number;
}

/** Whoever asks waits for no others: only what is measured for the lists is so a few at a time. */
export function createUsageMeter({
  db,
  rows,
  runtimeOf,
  now,
  log,
  everyMs = SAMPLE_MS,
}: UsageOptions): UsageMeter {
  const recent = new Map<string, Promise<Measurement>>();
  const samples = new Semaphore(SAMPLES_AT_A_TIME);
  let timer: Timer | undefined;
  let stopped = false;

  async function take(row: Environment): Promise<Measurement> {
    try {
      const usage = await runtimeOf(row.clusterId).usage(refOf(row));
      const measured = inPercent(row, usage, now());
      store(row, measured);
      return measured;
    } catch (error) {
      if (!(error instanceof RuntimeUnreachable)) throw error;
      const at = now();
      return {
        ...inPercent(row, null, at),
        cpu: null,
        memory: null,
        uptimeSeconds: uptime(row.startedAt, at),
      };
    }
  }

  function store(row: Environment, { cpu, memory, storage }: Measurement): void {
    db.update(environments)
      .set({ cpuUsage: cpu, memoryUsage: memory, ...(storage === null ? {} : { storageUsage: storage }) })
      .where(eq(environments.id, row.id))
      .run();
  }

  function measure(row: Environment): Promise<Measurement> {
    if (row.startedAt === null) return Promise.resolve(inPercent(row, null, now()));
    const key = `${row.id}/${row.generation}`;
    const begun = recent.get(key);
    if (begun) return begun;
    const measurement = take(row);
    recent.set(key, measurement);
    const forget = () => setTimeout(() => recent.delete(key), FRESH_MS).unref();
    measurement.then(forget, forget);
    return measurement;
  }

  /** One of a cluster that is out of reach would only take the others' time. */
  async function sample(id: string): Promise<void> {
    const row = stopped ? undefined : rows.byId(id);
    if (row?.status === "running" && row.unreachableSince === null) await measure(row);
  }

  /** A round after the other: one that takes long is not overtaken. What fails in it is measured in the next. */
  async function repeat(): Promise<void> {
    try {
      await Promise.allSettled(rows.unfinished().map((id) => samples.run(() => sample(id))));
    } catch (error) {
      log.error("measuring what runs failed", { error });
    }
    if (!stopped) timer = setTimeout(() => void repeat(), everyMs);
  }

  return {
    measure,
    start() {
      timer = setTimeout(() => void repeat(), everyMs);
    },
    stop() {
      stopped = true;
      clearTimeout(timer);
    },
  };
}

function inPercent(row: Environment, usage: Usage | null, at: number): Measurement {
  const limits = parseLimits(row.appliedResources ?? row.resources);
  const percent = (used: number | null, limit: number) =>
    used === null ? null : Math.round((used / limit) * 1000) / 10;
  return {
    cpu: usage ? percent(usage.cpuMillis, limits.cpuMillis) : 0,
    memory: usage ? percent(usage.memoryBytes, limits.memoryBytes) : 0,
    storage: percent(usage?.storageBytes ?? null, limits.storageBytes) ?? row.storageUsage,
    networkRxBytes: usage?.networkRxBytes ?? null,
    networkTxBytes: usage?.networkTxBytes ?? null,
    uptimeSeconds: uptime(usage?.startedAtMs ?? null, at),
    atMs: at,
  };
}

function uptime(startedAt: number | null, at: number): number {
  return startedAt === null ? 0 : Math.max(0, Math.floor((at - startedAt) / 1000));
}
