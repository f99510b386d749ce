/* The frames of holder.pl: a letter, the length of what follows (32 bits, big-endian), and that. */

const HEAD_BYTES = 5;
const OUTPUT = "o".charCodeAt(0);
/** Of all frames but output; what comes from a container is not to be trusted with our memory. */
const LARGEST_BYTES = 64 * 1024;

export interface FrameHandlers {
  /** Any part of an output frame, as it comes; valid during the call only. */
  onOutput(bytes: Uint8Array): void;
  onFrame(type: string, text: string): void;
}

/** Reads frames out of a stream that is cut anywhere. */
export class FrameReader {
  readonly #handlers: FrameHandlers;
  #head = Buffer.alloc(0);
  /** Of an output frame, what is still to come. */
  #outputBytes = 0;

  constructor(handlers: FrameHandlers) {
    this.#handlers = handlers;
  }

  /** False: these are no frames, and nothing more of the stream can be understood. */
  push(bytes: Uint8Array): boolean {
    let rest: Uint8Array = this.#head.length === 0 ? bytes : Buffer.concat([this.#head, bytes]);
    this.#head = Buffer.alloc(0);
    while (rest.length > 0) {
      if (this.#outputBytes > 0) {
        const part = rest.subarray(0, this.#outputBytes);
        this.#outputBytes -= part.length;
        rest = rest.subarray(part.length);
        this.#handlers.onOutput(part);
        continue;
      }
      const taken = this.#frame(rest);
      if (taken === null) return false;
      if (taken === 0) {
        this.#head = Buffer.from(rest);
        return true;
      }
      rest = rest.subarray(taken);
    }
    return true;
  }

  /** How many bytes it is; 0: not all of it is there, null: it is none. */
  #frame(bytes: Uint8Array): number | null {
    if (bytes.length < HEAD_BYTES) return 0;
    const length = new DataView(bytes.buffer, bytes.byteOffset).getUint32(1);
    if (bytes[0] === OUTPUT) {
      this.#outputBytes = length;
      return HEAD_BYTES;
    }
    if (length > LARGEST_BYTES) return null;
    const end = HEAD_BYTES + length;
    if (bytes.length < end) return 0;
    const text = Buffer.from(bytes.subarray(HEAD_BYTES, end)).toString("latin1");
    this.#handlers.onFrame(String.fromCharCode(bytes[0] ?? 0), text);
    return end;
  }
}

export function frameOf(type: string, text: string, bytes: Uint8Array = new Uint8Array()): Uint8Array {
  const frame = Buffer.alloc(HEAD_BYTES + text.length + bytes.length);
  frame.write(type, 0, "latin1");
  frame.writeUInt32BE(text.length + bytes.length, 1);
  frame.write(text, HEAD_BYTES, "latin1");
  frame.set(bytes, HEAD_BYTES + text.length);
  return frame;
}

export function numbersOf(text: string): number[] {
  return text.split(" ").map(Number);
}
