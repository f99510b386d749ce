import type { StatusFeed } from "./feed.ts";
import { isSettled } from "./lifecycle.ts";
import type { Environment, EnvironmentRows } from "./rows.ts";

interface SettleOptions {
  rows: EnvironmentRows;
  feed: StatusFeed;
  seconds: number;
  /** The client went away, or the server stops. */
  signal: AbortSignal;
}

/**
 * Resolves with the environment once its status is settled (a terminated one: once nothing is left of it),
 * or as it is when the time is over or another verb has changed what is wanted of it.
 */
export async function settled(
  row: Environment,
  { rows, feed, seconds, signal }: SettleOptions,
): Promise<Environment> {
  const latest = () => rows.byId(row.id) ?? row;
  const done = (now: Environment) =>
    now.generation !== row.generation ||
    (now.status === "terminated" ? now.tornDownAt !== null : isSettled(now.status));
  if (seconds <= 0 || done(latest())) return latest();
  await new Promise<void>((resolve) => {
    const end = () => {
      clearTimeout(timer);
      unwatch();
      signal.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, seconds * 1000);
    const unwatch = feed.watch(row.id, () => {
      if (done(latest())) end();
    });
    signal.addEventListener("abort", end);
    if (signal.aborted) end();
  });
  return latest();
}
