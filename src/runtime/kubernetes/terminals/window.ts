const KIB = 1024;
/** Beyond this a quicker reader has nothing of it. */
const MOST_BYTES = 1536 * KIB;
const FIRST_BYTES = 128 * KIB;
const LEAST_BYTES = 32 * KIB;
const LEAST_AHEAD_BYTES = 16 * KIB;
/** So many windows without a pause that says otherwise, and it is made larger. */
const GROW_AFTER = 8;
/** The far side is told of each such part of a window: every word to it wakes all that lies on the way. */
const GRANTED_PARTS = 4;
/** How long readers should take for what is on the way. */
const QUEUE_TARGET_MS = 25;
/** Over less than this a reader that has only stumbled seems slow. */
const MEASURED_MS = 50;

/**
 * How much output may be on its way to us. What is on the way is seen before the effect of a Ctrl-C: from pause to
 * pause it is measured how fast readers are, and the window follows.
 */
export class Window {
  readonly #now: () => number;
  #received = 0;
  #limit = 0;
  #most = MOST_BYTES;
  #bytes = FIRST_BYTES;
  #sinceChange = 0;
  #isPaused = false;
  /** The pause up to which it is known how fast readers are. */
  #measured = { atMs: 0, received: 0 };
  /** Nothing from here on before `resume`. */
  #ceiling = Number.POSITIVE_INFINITY;

  constructor(now: () => number = performance.now.bind(performance)) {
    this.#now = now;
    this.#measured.atMs = now();
  }

  /** Offset of the next byte that comes. */
  get received(): number {
    return this.#received;
  }

  /** What the far side was told: the first byte that it may not send. */
  get limit(): number {
    return Math.max(this.#limit, this.#received);
  }

  /** How much more than it may send the far side may have ready, so that it need not make it first. */
  get aheadBytes(): number {
    return Math.max(LEAST_AHEAD_BYTES, this.#bytes / 2);
  }

  /** The far side keeps no more than `bytes` for a connection that is lost. */
  capAt(bytes: number): void {
    this.#most = Math.min(MOST_BYTES, bytes);
    this.#bytes = Math.min(this.#bytes, this.#most);
  }

  /** @param ceiling offset that is not passed before `resume` */
  begin(offset: number, ceiling = Number.POSITIVE_INFINITY): void {
    this.#received = offset;
    this.#measured = { atMs: this.#now(), received: offset };
    this.#limit = offset;
    this.#ceiling = ceiling;
  }

  receive(length: number): void {
    this.#received += length;
    this.#sinceChange += length;
    if (this.#sinceChange >= GROW_AFTER * this.#bytes) this.#resize(this.#bytes * 2);
  }

  /** Whether the far side is to be told of a new limit. */
  grant(): boolean {
    const limit = Math.min(this.#received + this.#bytes, this.#ceiling);
    const isWorthTelling = limit - this.#limit >= this.#bytes / GRANTED_PARTS || limit === this.#ceiling;
    if (this.#isPaused || limit <= this.#limit || !isWorthTelling) return false;
    this.#limit = limit;
    return true;
  }

  pause(): void {
    if (this.#isPaused) return;
    this.#isPaused = true;
    const now = this.#now();
    const { atMs, received } = this.#measured;
    if (now - atMs < MEASURED_MS) return;
    this.#measured = { atMs: now, received: this.#received };
    const enough = ((this.#received - received) * QUEUE_TARGET_MS) / (now - atMs);
    const step = enough < this.#bytes ? 1 / 2 : enough >= this.#bytes * 2 ? 2 : 1;
    this.#resize(this.#bytes * step);
  }

  resume(): void {
    this.#isPaused = false;
    this.#ceiling = Number.POSITIVE_INFINITY;
  }

  #resize(bytes: number): void {
    this.#bytes = Math.min(this.#most, Math.max(LEAST_BYTES, bytes));
    this.#sinceChange = 0;
  }
}
