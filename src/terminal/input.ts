import { ByteQueue } from "../lib/byte-queue.ts";
import { TERMINAL_LIMITS } from "./limits.ts";

/** One client's place in a session's input; outlives its connections. */
export interface InputStream {
  /** Number of the last message that was taken; 0: none was numbered. */
  seq: number;
  /** How many bytes of the client's have been taken. */
  bytes: number;
}

/**
 * - `taken`: it is, or will be, written in its place
 * - `repeated`: it had been taken before
 * - `skipped`: its number leaves some out; not taken
 * - `refused`: too much waits; not taken
 */
export type InputResult = "taken" | "repeated" | "skipped" | "refused";

/**
 * What is typed into one terminal by all of its clients, each byte once and in order. Input is admitted when
 * it arrives, and written then or, where its client's limits hold it back, later: what has been admitted is
 * this server's to write, also when its client has gone.
 */
export class TerminalInput {
  readonly #write: (bytes: Uint8Array) => boolean;
  readonly #streams = new Map<string, InputStream>();
  /** Admitted and not yet given to the far side. */
  #admittedBytes = 0;
  readonly #waiting = new ByteQueue();
  #heldUp = false;

  /** @param write takes all it is given; false: nothing more before `drained` */
  constructor(write: (bytes: Uint8Array) => boolean) {
    this.#write = write;
  }

  /** False: the far side is held up, and whoever can wait should. */
  get flows(): boolean {
    return !this.#heldUp;
  }

  /** The place of `clientId`, from its beginning when it is new. Those used longest ago are forgotten. */
  stream(clientId: string): InputStream {
    const stream = this.#streams.get(clientId) ?? { seq: 0, bytes: 0 };
    this.#streams.delete(clientId);
    this.#streams.set(clientId, stream);
    if (this.#streams.size > TERMINAL_LIMITS.inputStreams) {
      const oldest = this.#streams.keys().next().value;
      if (oldest !== undefined) this.#streams.delete(oldest);
    }
    return stream;
  }

  /**
   * Whether `length` bytes are to be written; when they are taken, `write` must follow.
   *
   * @param seq the client's number of this message, counted from 1 without gaps
   */
  admit(stream: InputStream, length: number, seq?: number): InputResult {
    if (seq !== undefined) {
      if (seq <= stream.seq) return "repeated";
      if (stream.seq > 0 && seq > stream.seq + 1) return "skipped";
    }
    if (this.#admittedBytes + length > TERMINAL_LIMITS.waitingInputBytes) return "refused";
    if (seq !== undefined) stream.seq = seq;
    stream.bytes += length;
    this.#admittedBytes += length;
    return "taken";
  }

  /** Writes what was admitted, in any pieces. */
  write(bytes: Uint8Array): void {
    if (this.#heldUp) this.#waiting.push(bytes);
    else this.#pass(bytes);
  }

  /** The far side takes input again. */
  drained(): void {
    this.#heldUp = false;
    while (!this.#heldUp && this.#waiting.length > 0) {
      this.#pass(this.#waiting.take(TERMINAL_LIMITS.frameBytes));
    }
  }

  #pass(bytes: Uint8Array): void {
    this.#admittedBytes -= bytes.length;
    this.#heldUp = !this.#write(bytes);
  }
}
