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

  /** Takes from the front: some, at most `atMost`, and none only when there are none. Valid until the next `push`. */
  take(atMost: number): Uint8Array {
    const first = this.#chunks[0];
    if (first === undefined) return new Uint8Array(0);
    const to = Math.min(first.end, first.start + atMost);
    const taken = first.bytes.subarray(first.start, to);
    first.start = to;
    this.#length -= taken.length;
    if (first.start === first.end) this.#chunks.shift();
    return taken;
  }
}
