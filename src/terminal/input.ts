import { ByteQueue } from "../lib/byte-queue.ts";
import { newId } from "../lib/ids.ts";
import type { InputPlace } from "../runtime/runtime.ts";
import { TERMINAL_LIMITS } from "./limits.ts";

const { inputStreams, messageBytes, waitingInputBytes, inputChunkBytes } = TERMINAL_LIMITS;

/** One client's place in a session's input; outlives its connections. */
export interface InputStream {
  /** Number of the last message that was admitted; 0: none was numbered. */
  readonly seq: number;
  /** How many bytes of the client's have been admitted. */
  readonly bytes: number;
  /** As much of that as is written, or is kept by something that outlives this server: it can be told. */
  readonly taken: { readonly seq: number; readonly bytes: number };
  /** Numbered messages that are remembered because they are not wholly written. */
  readonly unwrittenMessages: number;
  /** Called when `taken` has changed. */
  onTaken: (() => void) | null;
}

/**
 * - `taken`: it is, or will be, written in its place
 * - `repeated`: it had been taken before
 * - `skipped`: its number leaves some out; not taken
 * - `refused`: too much waits; not taken
 */
export type InputResult = "taken" | "repeated" | "skipped" | "refused";

const START = { bytes: 0, seq: 0, part: 0 };

class Stream implements InputStream {
  readonly clientId: string;
  /** Under which the far side knows it: a client that was forgotten begins as another. */
  readonly key: string;
  /** Its client can type now. */
  isAttached = false;
  seq = 0;
  bytes = 0;
  taken = { seq: 0, bytes: 0 };
  onTaken: (() => void) | null = null;
  /** Of the next message, what was written before this server began. */
  part = 0;
  /** Of what is to be written next, what was written before. */
  skipBytes = 0;
  readonly #written = { bytes: 0, seq: 0 };
  /** Numbered messages that are not wholly written, each with its place and those without bytes that follow it. */
  readonly #messages: { seq: number; start: number; end: number }[] = [];

  constructor(clientId: string, place: Omit<InputPlace, "client"> & { client?: string } = START) {
    this.clientId = clientId;
    this.key = place.client ?? `${clientId}/${newId()}`;
    this.seq = place.seq;
    this.bytes = place.bytes;
    this.part = place.part;
    this.taken = { seq: place.seq, bytes: place.bytes };
    this.#written = { bytes: place.bytes, seq: place.seq };
  }

  get unwrittenMessages(): number {
    return this.#messages.length;
  }

  /** A message of `length` bytes, of which the first `before` were written before this server began. */
  add(length: number, seq: number | undefined, before: number): void {
    const start = this.bytes - before;
    this.bytes = start + length;
    if (seq === undefined) return;
    this.seq = seq;
    const last = this.#messages.at(-1);
    if (this.#written.bytes === this.bytes) this.#written.seq = seq;
    else if (last?.end === this.bytes) last.seq = seq;
    else this.#messages.push({ seq, start, end: this.bytes });
    if (this.taken.bytes === this.bytes) this.taken = { seq, bytes: this.bytes };
  }

  /** The place after `length` bytes more. */
  advance(length: number): InputPlace {
    const written = this.#written;
    written.bytes += length;
    for (;;) {
      const message = this.#messages[0];
      if (!message || message.end > written.bytes) break;
      written.seq = message.seq;
      this.#messages.shift();
    }
    // What has no number belongs to no message.
    const part = Math.max(0, written.bytes - (this.#messages[0]?.start ?? written.bytes));
    return { client: this.key, bytes: written.bytes, seq: written.seq, part };
  }

  /** Everything up to there is safe: what follows it without bytes is too. */
  confirm(seq: number, bytes: number): void {
    const written = this.#written;
    this.taken = { seq: bytes === written.bytes ? written.seq : seq, bytes };
  }
}

/**
 * What is typed into one terminal by all of its clients, each byte once and in order. Input is admitted when
 * it arrives, and written then or, where its client's limits hold it back, later: what has been admitted is
 * this server's to write, also when its client has gone. Where the terminal outlives this server, a client is
 * told that input is taken only when it would not be lost with the server.
 */
export class TerminalInput {
  readonly #write: (bytes: Uint8Array, place: InputPlace) => boolean;
  readonly #streams = new Map<string, Stream>();
  #usedLast: Stream | null = null;
  /** Whether `confirm` will say what is taken. */
  confirms = false;
  /** Admitted and not yet given to the far side, with what it costs to remember its messages. */
  #admittedBytes = 0;
  readonly #waiting = new ByteQueue();
  /** Whose bytes those are, in order. */
  readonly #turns: { stream: Stream; length: number }[] = [];
  #heldUp = false;

  /** @param write takes all it is given; false: nothing more before `drained` */
  constructor(write: (bytes: Uint8Array, place: InputPlace) => boolean) {
    this.#write = write;
  }

  /** False: the far side is held up, and whoever can wait should. */
  get flows(): boolean {
    return !this.#heldUp;
  }

  /** Goes on from where clients were when another server had this terminal. */
  restore(places: InputPlace[]): void {
    for (const place of places) {
      const [clientId = ""] = place.client.split("/");
      this.#use(new Stream(clientId, place));
    }
  }

  /**
   * The place of `clientId`, remembered for as long as it is attached.
   *
   * @param from asked when it is new: what its first byte counts as
   */
  attach(clientId: string, from = () => 0): InputStream {
    const stream = this.#streams.get(clientId) ?? new Stream(clientId, { ...START, bytes: from() });
    stream.isAttached = true;
    this.#use(stream);
    this.#forgetUnused();
    return stream;
  }

  /** Its client has gone: of those that have, the longest unused are forgotten. */
  detach(from: InputStream): void {
    const stream = asStream(from);
    stream.isAttached = false;
    // One that has typed nothing is as good as new when it comes back.
    if (stream.bytes === 0 && stream.seq === 0) this.#streams.delete(stream.clientId);
    this.#forgetUnused();
  }

  /** Whether all that `clientId` has typed is taken. */
  isSettled(clientId: string): boolean {
    const stream = this.#streams.get(clientId);
    return stream === undefined || stream.taken.bytes === stream.bytes;
  }

  /**
   * Whether `length` bytes are to be written; when they are taken, `write` must follow.
   *
   * @param seq the client's number of this message, counted from 1 without gaps
   */
  admit(to: InputStream, length: number, seq?: number): InputResult {
    const stream = asStream(to);
    if (seq !== undefined) {
      if (seq <= stream.seq) return "repeated";
      if (stream.seq > 0 && seq > stream.seq + 1) return "skipped";
    }
    const cost = length + (seq === undefined ? 0 : messageBytes);
    if (this.#admittedBytes + cost > waitingInputBytes) return "refused";
    const before = seq === undefined ? 0 : Math.min(stream.part, length);
    stream.part = 0;
    stream.skipBytes += before;
    const { unwrittenMessages } = stream;
    stream.add(length, seq, before);
    this.#admittedBytes += length + (stream.unwrittenMessages - unwrittenMessages) * messageBytes;
    this.#use(stream);
    if (!this.confirms) stream.taken = { seq: stream.seq, bytes: stream.bytes };
    return "taken";
  }

  /** Writes what was admitted, in any pieces. */
  write(from: InputStream, bytes: Uint8Array): void {
    const stream = asStream(from);
    const skipped = Math.min(stream.skipBytes, bytes.length);
    stream.skipBytes -= skipped;
    this.#admittedBytes -= skipped;
    const rest = skipped === 0 ? bytes : bytes.subarray(skipped);
    if (!this.#heldUp) this.#pass(stream, rest);
    else if (rest.length > 0) {
      this.#waiting.push(rest);
      const last = this.#turns.at(-1);
      if (last?.stream === stream) last.length += rest.length;
      else this.#turns.push({ stream, length: rest.length });
    }
  }

  /** The far side takes input again. */
  drained(): void {
    this.#heldUp = false;
    for (;;) {
      const turn = this.#turns[0];
      if (this.#heldUp || !turn) return;
      const bytes = this.#waiting.take(Math.min(turn.length, inputChunkBytes));
      turn.length -= bytes.length;
      if (turn.length === 0) this.#turns.shift();
      this.#pass(turn.stream, bytes);
    }
  }

  /** The far side has what was written up to `place`. */
  confirm({ client, seq, bytes }: InputPlace): void {
    const stream = this.#streams.get(client.split("/")[0] ?? "");
    if (stream?.key !== client || bytes <= stream.taken.bytes) return;
    stream.confirm(seq, bytes);
    stream.onTaken?.();
  }

  /** Those used last come last. */
  #use(stream: Stream): void {
    if (this.#usedLast === stream) return;
    this.#usedLast = stream;
    this.#streams.delete(stream.clientId);
    this.#streams.set(stream.clientId, stream);
  }

  #forgetUnused(): void {
    let tooMany = this.#streams.size - inputStreams;
    for (const stream of this.#streams.values()) {
      if (tooMany <= 0) return;
      if (stream.isAttached) continue;
      this.#streams.delete(stream.clientId);
      tooMany -= 1;
    }
  }

  #pass(stream: Stream, bytes: Uint8Array): void {
    if (bytes.length === 0) return;
    const { unwrittenMessages } = stream;
    const place = stream.advance(bytes.length);
    this.#admittedBytes -= bytes.length + (unwrittenMessages - stream.unwrittenMessages) * messageBytes;
    this.#heldUp = !this.#write(bytes, place);
  }
}

/** The place of someone who can't type: nobody remembers it. */
export function unusedStream(): InputStream {
  return new Stream("");
}

function asStream(stream: InputStream): Stream {
  if (stream instanceof Stream) return stream;
  throw new TypeError("not a stream of a terminal's input");
}
