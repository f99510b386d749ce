interface TokenBucketOptions {
  /** How many can be taken at once after a rest. */
  capacity: number;
  perMinute: number;
  now?: () => number;
}

/** A token bucket that begins full and refills evenly. */
export class TokenBucket {
  readonly #capacity: number;
  readonly #perMs: number;
  readonly #now: () => number;
  #tokens: number;
  #at: number;

  constructor({ capacity, perMinute, now = performance.now.bind(performance) }: TokenBucketOptions) {
    this.#capacity = capacity;
    this.#perMs = perMinute / 60_000;
    this.#now = now;
    this.#tokens = capacity;
    this.#at = now();
  }

  /** Takes `count` tokens, or none at all. */
  take(count = 1): boolean {
    this.#refill();
    if (this.#tokens < count) return false;
    this.#tokens -= count;
    return true;
  }

  /** Milliseconds until `count` tokens can be taken; 0: now. */
  waitMs(count = 1): number {
    this.#refill();
    return Math.max(0, Math.ceil((count - this.#tokens) / this.#perMs));
  }

  #refill(): void {
    const now = this.#now();
    this.#tokens = Math.min(this.#capacity, this.#tokens + (now - this.#at) * this.#perMs);
    this.#at = now;
  }
}
