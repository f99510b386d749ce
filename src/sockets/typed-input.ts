import { AppError } from "../errors.ts";
import type { Attachment } from "../terminal/attachment.ts";
import type { Peer } from "./connection.ts";
import { HeldInput } from "./held-input.ts";
import { SOCKET_LIMITS } from "./limits.ts";

/** What an entry that waits costs besides its bytes. */
const ENTRY_BYTES = 64;

/** What one client types: kept while its terminal is opened, admitted once, held under the message limit. */
export class TypedInput {
  readonly #peer: Peer;
  readonly #held: HeldInput;
  #attachment: Attachment | null = null;
  /** What came while the terminal was being opened. */
  #early: { bytes: Uint8Array; seq: number | undefined }[] = [];
  #earlyBytes = 0;
  #ackTimer: Timer | undefined;

  constructor(peer: Peer) {
    this.#peer = peer;
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
    const early = this.#early;
    this.#early = [];
    this.#earlyBytes = 0;
    for (const { bytes, seq } of early) this.type(bytes, seq);
  }

  /** Writes what was taken, to the last byte: the terminal is left. */
  leave(): void {
    this.#held.flush();
    if (this.#ackTimer !== undefined) this.#acknowledge();
    this.#attachment = null;
  }

  /** The terminal takes input again. */
  flows(): void {
    this.#held.run();
  }

  /** @param bytes may be used by the caller again afterwards */
  type(bytes: Uint8Array, seq: number | undefined): void {
    const attachment = this.#attachment;
    if (attachment === null) {
      this.#keep(bytes, seq);
      return;
    }
    if (this.#held.heldBytes + bytes.length > SOCKET_LIMITS.heldBackBytes) {
      this.#refuseMore();
      return;
    }
    switch (attachment.admit(bytes.length, seq)) {
      case "taken":
        this.#held.push(bytes);
        this.#acknowledgeSoon(seq);
        return;
      case "repeated":
        this.#acknowledgeSoon(seq);
        return;
      case "skipped":
        this.#peer.complain(`Input ${seq} was not taken: number ${attachment.input.seq + 1} comes next`);
        return;
      case "refused":
        this.#refuseMore();
    }
  }

  #keep(bytes: Uint8Array, seq: number | undefined): void {
    this.#earlyBytes += bytes.length + ENTRY_BYTES;
    if (this.#earlyBytes > SOCKET_LIMITS.heldBackBytes) this.#refuseMore();
    else this.#early.push({ bytes: new Uint8Array(bytes), seq });
  }

  #refuseMore(): void {
    this.#peer.fail(new AppError("too_large", "Too much input is held back"));
  }

  /** Says how far input has been taken, for clients that may have to send it again. */
  #acknowledgeSoon(seq: number | undefined): void {
    if (seq === undefined && !this.#peer.speaksBinary) return;
    this.#ackTimer ??= setTimeout(() => this.#acknowledge(), SOCKET_LIMITS.acknowledgeEveryMs);
  }

  #acknowledge(): void {
    clearTimeout(this.#ackTimer);
    this.#ackTimer = undefined;
    const input = this.#attachment?.input;
    if (input) this.#peer.send({ type: "input_ack", seq: input.seq, offset: input.bytes });
  }
}
