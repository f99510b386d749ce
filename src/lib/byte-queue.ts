const CHUNK_BYTES = 4096;

interface Chunk {
  bytes: Uint8Array;
  start: number;
  end: number;
}

/** Bytes in the order they came. Many small pieces take no more memory than one large one. */
export class ByteQueue {
  readonly #chunks: Chunk[] = [];
  #length = 0;

  get length(): number {
    return this.#length;
  }

  /** Copies `bytes` to the end. */
  push(bytes: Uint8Array): void {
    this.#length += bytes.length;
    const last = this.#chunks.at(-1);
    const fits = last ? Math.min(bytes.length, last.bytes.length - last.end) : 0;
    if (last && fits > 0) {
      last.bytes.set(bytes.subarray(0, fits), last.end);
      last.end += fits;
    }
    if (fits === bytes.length) return;
    const rest = bytes.subarray(fits);
    const chunk = new Uint8Array(Math.max(CHUNK_BYTES, rest.length));
    chunk.set(rest);
    this.#chunks.push({ bytes: chunk, start: 0, end: rest.length });
  }

  /** The front: some, at most `atMost`, and none only when there are none. It stays; valid until the next `push`. */
  peek(atMost = Number.POSITIVE_INFINITY): Uint8Array {
    const first = this.#chunks[0];
    if (first === undefined) return new Uint8Array(0);
    return first.bytes.subarray(first.start, Math.min(first.end, first.start + atMost));
  }

  /** Drops `length` bytes of what `peek` gives. @throws RangeError when that is less */
  drop(length: number): void {
    if (length > this.peek().length) throw new RangeError(`the front has fewer than ${length} bytes`);
    const first = this.#chunks[0];
    if (first === undefined) return;
    first.start += length;
    this.#length -= length;
    if (first.start === first.end) this.#chunks.shift();
  }

  /** Takes from the front what `peek` gives. */
  take(atMost: number): Uint8Array {
    const taken = this.peek(atMost);
    this.drop(taken.length);
    return taken;
  }

  clear(): void {
    this.#chunks.length = 0;
    this.#length = 0;
  }
}
