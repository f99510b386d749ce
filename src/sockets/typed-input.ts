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
  /** A client that never had a terminal must begin with the first number that was dropped, or one before. */
  #beginsWith = Number.POSITIVE_INFINITY;
  #mayGoOn: boolean;
  #ackTimer: Timer | undefined;
  /** What the client knows to be taken: that is never less. */
  #told = { seq: 0, offset: 0 };
  readonly #onTaken = () => this.#acknowledgeSoon();
  /** It sends numbers, or counts bytes. */
  #awaitsAcks: boolean;

  /** @param mayGoOn its client may count on from a terminal it had before, which is gone */
  constructor(peer: Peer, mayGoOn: boolean) {
    this.#peer = peer;
    this.#mayGoOn = mayGoOn;
    this.#awaitsAcks = peer.speaksBinary;
    this.#held = new HeldInput({
      messages: peer.messages,
      write: (bytes) => this.#attachment?.write(bytes),
      flows: () => this.#attachment?.inputFlows ?? false,
      onLimit: (isOver) => (isOver ? peer.overLimit() : peer.underLimit()),
    });
  }

  /** What was typed early, and what will be, goes to `attachment`. */
  attach(attachment: Attachment): void {
    this.#attachment = attachment;
    const { input } = attachment;
    this.#told = { seq: input.seq, offset: input.bytes };
    input.onTaken = this.#onTaken;
    this.#hasDropped = false;
    this.#mayGoOn = true;
    const early = this.#early;
    this.#early = [];
    this.#earlyBytes = 0;
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
   * It can't be typed, and is not kept. A client that counts what it types sends it again once it is attached,
   * with all that came after: nothing else of it may be typed before.
   */
  drop(seq: number | undefined): void {
    if (!this.#counts(seq)) return;
    this.#hasDropped = true;
    this.#early = [];
    this.#earlyBytes = 0;
    if (seq !== undefined && !this.#mayGoOn) this.#beginsWith = Math.min(this.#beginsWith, seq);
  }

  /** @param bytes may be used by the caller again afterwards */
  type(bytes: Uint8Array, seq: number | undefined): void {
    const attachment = this.#attachment;
    if (attachment === null) {
      this.#keep(bytes, seq);
      return;
    }
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

  #counts(seq: number | undefined): boolean {
    return seq !== undefined || this.#peer.speaksBinary;
  }

  #skipped(seq: number | undefined, next: number): void {
    this.#peer.complain(`Input ${seq} was not taken: number ${next} comes next`);
  }

  #keep(bytes: Uint8Array, seq: number | undefined): void {
    if (this.#hasDropped && this.#counts(seq)) {
      this.drop(seq);
      return;
    }
    this.#earlyBytes += bytes.length + messageBytes;
    if (this.#earlyBytes > SOCKET_LIMITS.heldBackBytes) this.#refuseMore();
    else this.#early.push({ bytes: new Uint8Array(bytes), seq });
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
