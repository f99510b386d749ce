import { AppError } from "../errors.ts";
import type { Attachment } from "../terminal/attachment.ts";
import { TERMINAL_LIMITS } from "../terminal/limits.ts";
import type { Peer } from "./connection.ts";
import { HeldInput } from "./held-input.ts";
import { SOCKET_LIMITS } from "./limits.ts";

const { messageBytes } = TERMINAL_LIMITS;
const { acknowledgeAfterMs, acknowledgeBytes } = SOCKET_LIMITS;

/** What one client types: kept while its terminal is opened, admitted once, held under the message limit. */
export class TypedInput {
  readonly #peer: Peer;
  readonly #held: HeldInput;
  #attachment: Attachment | null = null;
  /** What came while the terminal was being opened. */
  #early: { bytes: Uint8Array; seq: number | undefined }[] = [];
  #earlyBytes = 0;
  /** Since it was attached last, something was dropped that its client will send again. */
  #hasDropped = false;
  /** The first number that was dropped: in a new terminal its client must begin with that, or one before. */
  #beginsWith = Number.POSITIVE_INFINITY;
  /** Of a client that counts bytes, how far it has come, once it was attached: what is dropped counts too. */
  #countedTo: number | null = null;
  #ackTimer: Timer | undefined;
  /** What the client knows to be taken: that is never less. */
  #told = { seq: 0, offset: 0 };
  readonly #onTaken = () => this.#acknowledgeSoon();
  /** It sends numbers, or counts bytes. */
  #awaitsAcks: boolean;

  constructor(peer: Peer) {
    this.#peer = peer;
    this.#awaitsAcks = peer.speaksBinary;
    this.#held = new HeldInput({
      messages: peer.messages,
      write: (bytes) => this.#attachment?.write(bytes),
      flows: () => this.#attachment?.inputFlows ?? false,
      onLimit: (isOver) => (isOver ? peer.overLimit() : peer.underLimit()),
    });
  }

  /** Where in a new terminal the count of its client's bytes begins: it goes on over all of a connection. */
  get from(): number {
    return (this.#countedTo ?? this.#earlyBytes) - this.#earlyBytes;
  }

  /** All that was typed into the terminal is there: none of it would be lost with the way to it. */
  get isSettled(): boolean {
    const input = this.#attachment?.input;
    return this.#held.heldBytes === 0 && (input === undefined || input.taken.bytes === input.bytes);
  }

  /** What was typed early, and what will be, goes to `attachment`. */
  attach(attachment: Attachment): void {
    this.#attachment = attachment;
    const { input } = attachment;
    this.#told = { seq: input.seq, offset: input.bytes };
    input.onTaken = this.#onTaken;
    this.#hasDropped = false;
    if (this.#peer.speaksBinary) this.#countedTo = input.bytes;
    const early = this.#early;
    this.#forgetEarly();
    for (const { bytes, seq } of early) this.type(bytes, seq);
  }

  /** Writes what was taken, to the last byte: the terminal is left. */
  leave(): void {
    this.#held.flush();
    if (this.#ackTimer !== undefined) this.#acknowledge();
    const input = this.#attachment?.input;
    // The client's next connection may have it already.
    if (input?.onTaken === this.#onTaken) input.onTaken = null;
    this.#attachment = null;
  }

  /** The terminal takes input again. */
  flows(): void {
    this.#held.run();
  }

  /**
   * `length` bytes can't be typed, and are not kept. A client that sends numbers, or was not attached yet, sends
   * them again once it is, with all that came after: nothing else of it may be typed before.
   */
  drop(length: number, seq: number | undefined): void {
    if (seq === undefined && this.#countedTo !== null) {
      this.#countedTo += length;
      return;
    }
    if (seq === undefined && !this.#peer.speaksBinary) return;
    this.#hasDropped = true;
    this.#forgetEarly();
    if (seq !== undefined) this.#beginsWith = Math.min(this.#beginsWith, seq);
  }

  /** @param bytes may be used by the caller again afterwards */
  type(bytes: Uint8Array, seq: number | undefined): void {
    const attachment = this.#attachment;
    if (attachment === null) {
      this.#keep(bytes, seq);
      return;
    }
    if (seq === undefined && this.#countedTo !== null) this.#countedTo += bytes.length;
    const heldBytes = this.#held.heldBytes + attachment.input.unwrittenMessages * messageBytes;
    if (heldBytes + bytes.length > SOCKET_LIMITS.heldBackBytes) {
      this.#refuseMore();
      return;
    }
    this.#awaitsAcks ||= seq !== undefined;
    if (seq !== undefined && seq > this.#beginsWith) {
      this.#skipped(seq, this.#beginsWith);
      return;
    }
    switch (attachment.admit(bytes.length, seq)) {
      case "taken":
        if (seq !== undefined) this.#beginsWith = Number.POSITIVE_INFINITY;
        this.#held.push(bytes);
        this.#acknowledgeSoon();
        return;
      case "repeated":
        this.#acknowledgeSoon();
        return;
      case "skipped":
        this.#skipped(seq, attachment.input.seq + 1);
        return;
      case "refused":
        this.#refuseMore();
    }
  }

  #skipped(seq: number | undefined, next: number): void {
    this.#peer.complain(`Input ${seq} was not taken: number ${next} comes next`);
  }

  #keep(bytes: Uint8Array, seq: number | undefined): void {
    if (this.#hasDropped && (seq !== undefined || this.#peer.speaksBinary)) {
      this.drop(bytes.length, seq);
      return;
    }
    if (seq === undefined && this.#countedTo !== null) this.#countedTo += bytes.length;
    this.#earlyBytes += bytes.length;
    this.#early.push({ bytes: new Uint8Array(bytes), seq });
    const cost = this.#early.length * messageBytes;
    if (this.#earlyBytes + cost > SOCKET_LIMITS.heldBackBytes) this.#refuseMore();
  }

  #forgetEarly(): void {
    this.#early = [];
    this.#earlyBytes = 0;
  }

  #refuseMore(): void {
    this.#peer.fail(new AppError("too_large", "Too much input is held back"));
  }

  /** Says how far input has been taken, for clients that may have to send it again. */
  #acknowledgeSoon(): void {
    if (!this.#awaitsAcks) return;
    const untold = (this.#attachment?.input.taken.bytes ?? 0) - this.#told.offset;
    if (untold >= acknowledgeBytes) this.#acknowledge();
    else this.#ackTimer ??= setTimeout(() => this.#acknowledge(), acknowledgeAfterMs);
  }

  #acknowledge(): void {
    clearTimeout(this.#ackTimer);
    this.#ackTimer = undefined;
    const taken = this.#attachment?.input.taken;
    if (!taken) return;
    const { seq, offset } = this.#told;
    this.#told = { seq: Math.max(seq, taken.seq), offset: Math.max(offset, taken.bytes) };
    this.#peer.send({ type: "input_ack", ...this.#told });
  }
}
