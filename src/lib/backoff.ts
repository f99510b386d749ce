export interface Backoff {
  /** Delay before the second attempt, in milliseconds. */
  baseMs: number;
  maxMs: number;
}

/**
 * Exponential backoff with equal jitter: half of the delay is certain, half random, so that what failed
 * together does not come back together.
 *
 * @param attempt how many attempts have failed, from 1
 */
export function backoffMs(
  { baseMs, maxMs }: Backoff,
  attempt: number,
  random: () => number = Math.random,
): number {
  const full = Math.min(maxMs, baseMs * 2 ** Math.max(0, attempt - 1));
  return Math.round(full / 2 + (random() * full) / 2);
}
