/** How a request stands to its limit. */
export interface Verdict {
  allowed: boolean;
  limit: number;
  remaining: number;
  /** When the oldest request that still counts will no longer, in milliseconds since the epoch. */
  resetAtMs: number;
}

/** The requests of one key, oldest first: the slice of time they fell in, and their number in it. */
interface Hits {
  key: string;
  /** Where it stands in `#all`. */
  place: number;
  slices: number[];
  counts: number[];
  total: number;
}

interface Options {
  limit: number;
  windowMs?: number;
  maxKeys?: number;
}

/** Up to this many requests each has a slice of a millisecond of its own; beyond, the window is cut into this many. */
const MAX_SLICES = 128;
/** How many keys are looked at for the one that is to go. */
const SAMPLE = 16;

/**
 * A sliding window: within any `windowMs` at most `limit` requests of a key are allowed. What is refused
 * does not count.
 *
 * At most `maxKeys` keys are remembered. When there are more, the one with the fewest requests of a sample
 * goes: a flood of fresh addresses displaces its own kind, not those who are near their limit.
 */
export class SlidingWindow {
  readonly limit: number;
  readonly #windowMs: number;
  readonly #sliceMs: number;
  readonly #maxKeys: number;
  readonly #byKey = new Map<string, Hits>();
  /** The same in no order, for a hand that goes round like a clock's. */
  readonly #all: Hits[] = [];
  #hand = 0;

  constructor({ limit, windowMs = 60_000, maxKeys = 100_000 }: Options) {
    this.limit = limit;
    this.#windowMs = windowMs;
    this.#sliceMs = limit <= MAX_SLICES ? 1 : windowMs / MAX_SLICES;
    this.#maxKeys = maxKeys;
  }

  /** Counts one request of `key`, unless its limit is reached. `nowMs` must not run backwards. */
  take(key: string, nowMs: number): Verdict {
    const hits = this.#byKey.get(key) ?? this.#add(key, nowMs);
    this.#forget(hits, nowMs);
    const allowed = hits.total < this.limit;
    if (allowed) {
      const slice = Math.floor(nowMs / this.#sliceMs);
      const last = hits.slices.length - 1;
      if (hits.slices[last] === slice) hits.counts[last] = (hits.counts[last] ?? 0) + 1;
      else {
        hits.slices.push(slice);
        hits.counts.push(1);
      }
      hits.total += 1;
    }
    return {
      allowed,
      limit: this.limit,
      remaining: this.limit - hits.total,
      resetAtMs: this.#endOf(hits.slices[0] ?? 0),
    };
  }

  /** How many keys are remembered. */
  get size(): number {
    return this.#all.length;
  }

  /** When the requests of `slice` stop counting: no earlier than `windowMs` after its last instant. */
  #endOf(slice: number): number {
    return (slice + 1) * this.#sliceMs + this.#windowMs;
  }

  #forget(hits: Hits, nowMs: number): void {
    let gone = 0;
    for (const slice of hits.slices) {
      if (this.#endOf(slice) > nowMs) break;
      hits.total -= hits.counts[gone] ?? 0;
      gone += 1;
    }
    if (gone > 0) {
      hits.slices.splice(0, gone);
      hits.counts.splice(0, gone);
    }
  }

  #add(key: string, nowMs: number): Hits {
    // Two old keys are looked at for each new one: what has expired goes before there is a need.
    if (this.#all.length < this.#maxKeys) this.#review(2, nowMs);
    else this.#makeRoom(nowMs);
    const hits: Hits = { key, place: this.#all.length, slices: [], counts: [], total: 0 };
    this.#byKey.set(key, hits);
    this.#all.push(hits);
    return hits;
  }

  #makeRoom(nowMs: number): void {
    const fewest = this.#review(SAMPLE, nowMs);
    if (fewest && this.#all.length >= this.#maxKeys) this.#remove(fewest);
  }

  /** Drops those of the next `count` keys that have expired; gives the one of the others with the fewest requests. */
  #review(count: number, nowMs: number): Hits | undefined {
    let fewest: Hits | undefined;
    for (let i = 0; i < count; i++) {
      if (this.#hand >= this.#all.length) this.#hand = 0;
      const hits = this.#all[this.#hand];
      if (!hits) break;
      this.#forget(hits, nowMs);
      if (hits.total === 0) {
        this.#remove(hits);
        continue;
      }
      if (!fewest || hits.total < fewest.total) fewest = hits;
      this.#hand += 1;
    }
    return fewest;
  }

  /** The last one takes the place of the one that goes. */
  #remove(hits: Hits): void {
    const last = this.#all.pop();
    if (last && last !== hits) {
      this.#all[hits.place] = last;
      last.place = hits.place;
    }
    this.#byKey.delete(hits.key);
  }
}
