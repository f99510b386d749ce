const KIB = 1024;
/** At most a third of what holder.pl keeps, so that nothing on the way is ever gone from there. */
const MOST_BYTES = 512 * KIB;
const FIRST_BYTES = 128 * KIB;
const LEAST_BYTES = 32 * KIB;
const LEAST_AHEAD_BYTES = 64 * KIB;
/** So many windows without a pause, and it is made larger. */
const GROW_AFTER = 8;
/** The far side is told of each such part of a window: told of larger ones only, it stands still in between. */
const GRANTED_PARTS = 8;

/**
 * How much output may be on its way to us. What is on the way is seen before the effect of a Ctrl-C: when
 * readers are slow, which shows in pauses, the window is made smaller.
 */
export class Window {
  #received = 0;
  #limit = 0;
  #bytes = FIRST_BYTES;
  #sinceChange = 0;
  #isPaused = false;
  /** Nothing from here on before `resume`. */
  #ceiling = Number.POSITIVE_INFINITY;

  /** Offset of the next byte. */
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

  /** @param ceiling offset that is not passed before `resume` */
  begin(offset: number, ceiling = Number.POSITIVE_INFINITY): void {
    this.#received = offset;
    this.#limit = offset;
    this.#ceiling = ceiling;
  }

  receive(length: number): void {
    this.#received += length;
    this.#sinceChange += length;
    if (this.#sinceChange < GROW_AFTER * this.#bytes) return;
    this.#sinceChange = 0;
    this.#bytes = Math.min(MOST_BYTES, this.#bytes * 2);
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
    this.#isPaused = true;
    this.#sinceChange = 0;
    this.#bytes = Math.max(LEAST_BYTES, this.#bytes / 2);
  }

  resume(): void {
    this.#isPaused = false;
    this.#ceiling = Number.POSITIVE_INFINITY;
  }
}
