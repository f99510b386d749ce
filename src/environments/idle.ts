import { and, eq, sql } from "drizzle-orm";
import type { Db } from "../db/open.ts";
import { environments, type Plan, users } from "../db/schema.ts";
import { every } from "../lib/every.ts";
import { lazily } from "../lib/lazily.ts";
import type { Logger } from "../lib/logger.ts";
import type { Activity } from "./activity.ts";
import type { Environment } from "./rows.ts";

const CHECK_MS = 15_000;
/** The owner is told in the log this long before. */
const WARN_BEFORE_MS = 5 * 60_000;

/** After how long without activity a running environment is stopped, by plan; null: never. */
export type IdleLimits = Record<Plan, number | null>;

export interface IdleOptions {
  db: Db;
  activity: Activity;
  limits: IdleLimits;
  now(): number;
  log: Logger;
  warn(row: Environment, message: string): void;
  /** Stops it as a verb of DevPocket's own, with the reason in log, audit and object. */
  stop(row: Environment, reason: string): void;
}

export interface IdleWatch {
  /** Looks once; `start` does so every few seconds. */
  check(): void;
  start(): void;
  stop(): void;
}

/** Stops what nobody uses. Terminal input and output count as use, and so does having just started. */
export function createIdleWatch({ db, activity, limits, now, log, warn, stop }: IdleOptions): IdleWatch {
  /** The last use for which the warning was given, for new use earns a new one, and when it said to stop. */
  const warned = new Map<string, { usedAt: number; stopAt: number }>();
  let timer: Timer | undefined;

  const running = lazily(() =>
    db
      .select({ environment: environments, plan: users.plan })
      .from(environments)
      .innerJoin(users, eq(users.id, environments.userId))
      .where(
        and(
          eq(environments.status, "running"),
          sql`max(coalesce(${environments.lastActivity}, 0), ${environments.statusSince}) <= ${sql.placeholder("before")}`,
        ),
      )
      .prepare(),
  );
  const shortestMs = Math.min(...Object.values(limits).flatMap((ms) => (ms === null ? [] : [ms])));

  function check(): void {
    activity.flush();
    if (!Number.isFinite(shortestMs)) return;
    const at = now();
    const noticeMs = Math.min(WARN_BEFORE_MS, shortestMs / 2);
    const idle = running().all({ before: at - shortestMs + noticeMs });
    for (const { environment, plan } of idle) {
      try {
        consider(environment, limits[plan], at);
      } catch (error) {
        log.error("an idle environment was neither told of nor stopped", {
          environment_id: environment.id,
          error,
        });
      }
    }
    for (const id of warned.keys()) {
      if (!idle.some(({ environment }) => environment.id === id)) warned.delete(id);
    }
  }

  function consider(row: Environment, limitMs: number | null, at: number): void {
    if (limitMs === null) return;
    const usedAt = Math.max(row.lastActivity ?? 0, row.statusSince);
    const noticeMs = Math.min(WARN_BEFORE_MS, limitMs / 2);
    if (usedAt + limitMs - noticeMs > at) return;
    const notice = warned.get(row.id);
    if (notice?.usedAt !== usedAt) {
      // Also of what has been idle for long: the server was off, or the limit is a new one.
      const stopAt = Math.max(usedAt + limitMs, at + noticeMs);
      warn(
        row,
        `Nobody has used this environment for a while; it will be stopped in ${inWords(stopAt - at)}`,
      );
      warned.set(row.id, { usedAt, stopAt });
    } else if (notice.stopAt <= at) {
      stop(row, `Stopped after ${inWords(limitMs)} without activity`);
    }
  }

  return {
    check,
    start() {
      timer = every(Math.min(CHECK_MS, shortestMs / 8), check, (error) =>
        log.error("looking for idle environments failed", { error }),
      );
    },
    stop: () => clearInterval(timer),
  };
}

function inWords(ms: number): string {
  for (const [unit, size] of [
    ["day", 86_400_000],
    ["hour", 3_600_000],
    ["minute", 60_000],
  ] as const) {
    const n = Math.round(ms / size);
    if (ms >= size && Math.abs(n * size - ms) < size / 2) return `${n} ${unit}${n === 1 ? "" : "s"}`;
  }
  const seconds = Math.max(1, Math.round(ms / 1000));
  return `${seconds} second${seconds === 1 ? "" : "s"}`;
}
