import type { EnvironmentRef } from "../runtime.ts";

/** Tells every listener at which environments something may have changed; several for one become one. */
export class Changes {
  readonly #listeners = new Set<(ref: EnvironmentRef) => void>();

  tell(ref: EnvironmentRef): void {
    for (const listener of this.#listeners) listener(ref);
  }

  async *listen(signal: AbortSignal): AsyncGenerator<EnvironmentRef> {
    const waiting = new Map<string, EnvironmentRef>();
    let wake = () => {};
    const listener = (ref: EnvironmentRef) => {
      waiting.set(ref.environmentId, ref);
      wake();
    };
    const stop = () => wake();
    this.#listeners.add(listener);
    signal.addEventListener("abort", stop);
    try {
      while (!signal.aborted) {
        for (const ref of waiting.values()) {
          waiting.delete(ref.environmentId);
          yield ref;
          if (signal.aborted) return;
        }
        if (waiting.size === 0 && !signal.aborted) {
          await new Promise<void>((resolve) => {
            wake = resolve;
          });
        }
      }
    } finally {
      this.#listeners.delete(listener);
      signal.removeEventListener("abort", stop);
    }
  }
}
