const INITIAL_BYTES = 4096;
/** Each size is left behind for the collector: in steps of two that would be as much again as is kept. */
const GROWTH = 16;

/**
 * The last `capacity` bytes of a stream, each with its absolute offset: the first byte ever pushed has
 * `first`, 0 unless the stream had begun elsewhere. All that is kept follows one on the other.
 * Memory grows with what is kept, in powers of 16.
 */
export class ByteRing {
  #capacity: number;
  #bytes: Uint8Array;
  #first: number;
  #end: number;

  constructor(capacity: number, first = 0) {
    this.#capacity = capacity;
    this.#first = first;
    this.#end = first;
    this.#bytes = new Uint8Array(Math.min(capacity, INITIAL_BYTES));
  }

  /** Offset of the oldest byte that is kept. */
  get start(): number {
    return Math.max(this.#first, this.#end - this.#capacity);
  }

  /** Offset that the next byte will have. */
  get end(): number {
    return this.#end;
  }

  /** How much memory it takes now. */
  get allocatedBytes(): number {
    return this.#bytes.length;
  }

  /** Keeps more from now on. @throws RangeError once it has been full */
  widen(capacity: number): void {
    if (this.#end - this.#first > this.#capacity)
      throw new RangeError("a ring that has been full can't be widened");
    this.#capacity = Math.max(this.#capacity, capacity);
  }

  push(bytes: Uint8Array): void {
    this.#grow(this.#end - this.#first + bytes.length);
    const size = this.#bytes.length;
    // Of more than fits only the tail would be left.
    const kept = bytes.length > size ? bytes.subarray(bytes.length - size) : bytes;
    this.#end += bytes.length;
    const at = (this.#end - this.#first - kept.length) % size;
    const untilWrap = size - at;
    if (kept.length <= untilWrap) this.#bytes.set(kept, at);
    else {
      this.#bytes.set(kept.subarray(0, untilWrap), at);
      this.#bytes.set(kept.subarray(untilWrap), 0);
    }
  }

  /** `length` bytes of the stream are missing: nothing before them is kept, it goes on after them. */
  skip(length: number): void {
    this.#end += length;
    this.#first = this.#end;
  }

  /**
   * The bytes from offset `from` up to `to`, both within what is kept. Valid until the next `push`: it is a
   * view where it can be, a copy across the wrap.
   */
  view(from: number, to: number): Uint8Array {
    if (from < this.start || to > this.#end || from > to) {
      throw new RangeError(`${from}–${to} is not within ${this.start}–${this.#end}`);
    }
    const size = this.#bytes.length;
    const at = (from - this.#first) % size;
    const length = to - from;
    if (at + length <= size) return this.#bytes.subarray(at, at + length);
    const joined = new Uint8Array(length);
    joined.set(this.#bytes.subarray(at), 0);
    joined.set(this.#bytes.subarray(0, length - (size - at)), size - at);
    return joined;
  }

  /** Before its full size nothing has wrapped: every byte lies at its offset, and stays there. */
  #grow(needed: number): void {
    let size = this.#bytes.length;
    if (needed <= size || size >= this.#capacity) return;
    while (size < needed && size < this.#capacity) size = Math.min(this.#capacity, size * GROWTH);
    const larger = new Uint8Array(size);
    larger.set(this.#bytes);
    this.#bytes = larger;
  }
}
