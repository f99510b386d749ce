import { createBell } from "../lib/bell.ts";
import type { EnvironmentRef } from "./runtime.ts";

/** Carries hints that something may have changed from the watches to whoever listens. */
export interface Hints {
  tell(ref: EnvironmentRef): void;
  /** Calls `listener` at every hint; gives what ends that. */
  on(listener: (ref: EnvironmentRef) => void): () => void;
  /** Hints from now on, an environment at most once among those that wait. Ends with `signal`. */
  listen(signal: AbortSignal): AsyncIterable<EnvironmentRef>;
}

const LONG_MS = 3_600_000;

export function createHints(): Hints {
  const listeners = new Set<(ref: EnvironmentRef) => void>();
  const on = (listener: (ref: EnvironmentRef) => void) => {
    listeners.add(listener);
    return () => {
      listeners.delete(listener);
    };
  };
  return {
    on,
    tell(ref) {
      for (const listener of listeners) listener(ref);
    },
    // Listens from the call on, not only from when the first hint is asked for.
    listen(signal) {
      const waiting = new Map<string, EnvironmentRef>();
      const bell = createBell();
      const off = on((ref) => {
        waiting.set(ref.environmentId, ref);
        bell.ring();
      });
      return taken(waiting, bell, signal, off);
    },
  };
}

async function* taken(
  waiting: Map<string, EnvironmentRef>,
  bell: ReturnType<typeof createBell>,
  signal: AbortSignal,
  off: () => void,
): AsyncGenerator<EnvironmentRef> {
  try {
    while (!signal.aborted) {
      for (const [id, ref] of waiting) {
        waiting.delete(id);
        yield ref;
        if (signal.aborted) return;
      }
      if (waiting.size === 0) await bell.wait(LONG_MS, signal);
    }
  } finally {
    off();
  }
}
