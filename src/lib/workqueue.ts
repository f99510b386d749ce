/**
 * A work queue in the manner of client-go: an id is in it at most once, different ids are worked on side
 * by side up to a limit, and never the same id twice at once. An id that is added while it is being worked
 * on is worked on again afterwards.
 */
export class WorkQueue {
  readonly #work: (id: string) => Promise<void>;
  readonly #concurrency: number;
  /** Waiting for a free place, in order. */
  readonly #dirty = new Set<string>();
  readonly #processing = new Set<string>();
  /** Added while it was being worked on. */
  readonly #again = new Set<string>();
  readonly #timers = new Map<string, { at: number; timer: Timer }>();
  #stopped = false;
  #idle: (() => void)[] = [];

  /** @param work must not reject: what fails is the caller's to handle and to add again */
  constructor(work: (id: string) => Promise<void>, { concurrency }: { concurrency: number }) {
    this.#work = work;
    this.#concurrency = concurrency;
  }

  add(id: string): void {
    if (this.#stopped) return;
    this.#cancelTimer(id);
    if (this.#processing.has(id)) this.#again.add(id);
    else this.#dirty.add(id);
    this.#pump();
  }

  /** Adds `id` in `delayMs`; of several delays for one id the earliest counts. */
  addAfter(id: string, delayMs: number): void {
    if (this.#stopped) return;
    const at = performance.now() + delayMs;
    const planned = this.#timers.get(id);
    if (planned && planned.at <= at) return;
    if (planned) clearTimeout(planned.timer);
    this.#timers.set(id, { at, timer: setTimeout(() => this.add(id), delayMs) });
  }

  /** Ids that wait or are being worked on; those with only a timer are not counted. */
  get depth(): number {
    return this.#dirty.size + this.#processing.size;
  }

  /** Takes nothing more; resolves with how many were still being worked on when `limitMs` had passed. */
  async stop(limitMs: number): Promise<number> {
    this.#stopped = true;
    this.#dirty.clear();
    this.#again.clear();
    for (const { timer } of this.#timers.values()) clearTimeout(timer);
    this.#timers.clear();
    if (this.#processing.size > 0) {
      await Promise.race([new Promise<void>((resolve) => this.#idle.push(resolve)), Bun.sleep(limitMs)]);
    }
    return this.#processing.size;
  }

  #cancelTimer(id: string): void {
    const planned = this.#timers.get(id);
    if (planned) clearTimeout(planned.timer);
    this.#timers.delete(id);
  }

  #pump(): void {
    for (const id of this.#dirty) {
      if (this.#processing.size >= this.#concurrency) return;
      this.#dirty.delete(id);
      this.#processing.add(id);
      void this.#work(id).finally(() => this.#done(id));
    }
  }

  #done(id: string): void {
    this.#processing.delete(id);
    if (this.#again.delete(id) && !this.#stopped) this.#dirty.add(id);
    if (this.#processing.size === 0) for (const resolve of this.#idle.splice(0)) resolve();
    this.#pump();
  }
}
