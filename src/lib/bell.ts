/** Wakes one who waits. A ring while nobody waits is heard by the next to wait. */
export interface Bell {
  ring(): void;
  /** Resolves at a ring, after `ms` or when `signal` aborts. */
  wait(ms: number, signal: AbortSignal): Promise<void>;
}

export function createBell(): Bell {
  let rung = false;
  let wake: (() => void) | undefined;
  return {
    ring() {
      rung = true;
      wake?.();
    },
    async wait(ms, signal) {
      if (!rung && !signal.aborted) {
        const { promise, resolve } = Promise.withResolvers<void>();
        wake = resolve;
        const aborted = () => resolve();
        const timer = setTimeout(resolve, ms);
        signal.addEventListener("abort", aborted);
        await promise;
        clearTimeout(timer);
        signal.removeEventListener("abort", aborted);
        wake = undefined;
      }
      rung = false;
    },
  };
}
