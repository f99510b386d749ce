import type { StoredLine } from "./chunk.ts";
import type { LogStore } from "./store.ts";

export interface FollowOptions {
  /** Number of the last line that the follower has; 0: none. */
  after: number;
  signal: AbortSignal;
  /** Aborts when no more lines will come: it ends after those that there are. */
  complete?: AbortSignal;
}

/**
 * The lines of an environment after number `after`, then as they come, every one once and in order, in
 * batches of some hundred at most. Ends when `signal` aborts, whatever there may be.
 *
 * Nothing is queued for a follower: it reads from the store when it asks for more. A slow one costs no
 * memory, and when lines have been dropped before it came to them it is told how many.
 */
export async function* follow(
  store: LogStore,
  environmentId: string,
  { after, signal, complete }: FollowOptions,
): AsyncGenerator<StoredLine[], void, void> {
  // A number from the future (of another database) would wait for lines that never come.
  let position = Math.min(Math.max(0, after), store.lastSeq(environmentId));
  let wake = () => {};
  const unsubscribe = store.subscribe(environmentId, () => wake());
  const onAbort = () => wake();
  for (const each of [signal, complete]) each?.addEventListener("abort", onAbort);
  try {
    while (!signal.aborted) {
      const batch = store.readAfter(environmentId, position);
      const last = batch.at(-1);
      if (last) {
        position = last.seq;
        yield batch;
      } else if (complete?.aborted) {
        return;
      } else {
        // Reading and falling asleep are one synchronous step: no wake-up is lost between them.
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
    }
  } finally {
    unsubscribe();
    for (const each of [signal, complete]) each?.removeEventListener("abort", onAbort);
  }
}
