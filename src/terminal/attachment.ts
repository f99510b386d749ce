import type { ByteRing } from "../lib/ring.ts";
import { cutCharacter, wholeCharacters } from "../lib/utf8.ts";
import type { TerminalSize } from "../runtime/runtime.ts";
import { Credit } from "./credit.ts";
import type { InputResult, InputStream } from "./input.ts";
import { TERMINAL_LIMITS } from "./limits.ts";
import type { Screen } from "./screen.ts";

/** Where an attachment's output goes. */
export interface Viewer {
  /** What it has been given and the network has not yet taken. */
  readonly unsentBytes: number;
  /** The next bytes, the first of which has `offset`; valid during the call only. */
  output(bytes: Uint8Array, offset: number): void;
  /** `bytes` are gone from the scrollback; it goes on at `offset`, with a terminal that `restore` has set. */
  gap(bytes: number, offset: number, restore: string): void;
  /** Someone else has changed the size. */
  resized(size: TerminalSize): void;
  /** The shell has ended and all of its output was given. */
  exited(code: number | null): void;
  /** The same client has attached anew: this is the connection that it has lost. */
  displaced(): void;
  /** Input flows again. */
  inputFlows(): void;
}

export interface AttachmentOptions {
  viewer: Viewer;
  /** Offset of the first byte it is to get; what the client asked for, perhaps gone already. */
  offset: number;
  /** Output is given in whole UTF-8 characters. */
  text: boolean;
  /** Acknowledgements are expected from the first byte on; else from the first acknowledgement on. */
  acknowledges: boolean;
  readOnly: boolean;
  clientId: string;
  /** Asked of a client that the session does not know: where the count of its input begins; default: at 0. */
  inputFrom?(): number;
  size: TerminalSize | null;
}

/** What an attachment needs of its session. */
export interface Source {
  readonly ring: ByteRing;
  readonly screen: Screen;
  /** The shell's exit, once it has ended. */
  readonly exit: { code: number | null } | null;
  readonly inputFlows: boolean;
  admit(attachment: Attachment, length: number, seq: number | undefined): InputResult;
  write(attachment: Attachment, bytes: Uint8Array): void;
  resize(attachment: Attachment): void;
  detach(attachment: Attachment): void;
  /** The attachment has moved on, or can't. */
  regulate(): void;
}

/** Offset of the first byte that there is to give: as text, of the first character that is whole. */
export function startOf(ring: ByteRing, text: boolean): number {
  const { start, end } = ring;
  if (!text || start === 0) return start;
  return start + cutCharacter(ring.view(start, Math.min(start + 3, end)));
}

/**
 * One viewer of a session. It has its own place in the scrollback and takes from there whatever its
 * transport and its client's acknowledgements allow: a slow one costs nothing but the ring that is there
 * anyway.
 */
export class Attachment {
  readonly viewer: Viewer;
  readonly clientId: string;
  readonly readOnly: boolean;
  /** The client's place in the input. */
  readonly input: InputStream;
  size: TerminalSize | null;
  readonly #source: Source;
  readonly #text: boolean;
  #credit: Credit | null;
  #offset: number;
  /** Where what it has been given without a gap begins. */
  #gaplessFrom: number;
  #state: "new" | "attached" | "detached" = "new";
  #pumping = false;
  #stallTimer: Timer | undefined;

  constructor(source: Source, input: InputStream, options: AttachmentOptions) {
    this.#source = source;
    this.input = input;
    this.viewer = options.viewer;
    this.clientId = options.clientId;
    this.readOnly = options.readOnly;
    this.size = options.size;
    this.#text = options.text;
    this.#offset = Math.min(options.offset, source.ring.end);
    this.#gaplessFrom = this.#offset;
    this.#credit = options.acknowledges ? new Credit(this.#offset) : null;
  }

  /** Offset of the next byte it gets. */
  get offset(): number {
    return this.#offset;
  }

  get inputFlows(): boolean {
    return this.#source.inputFlows;
  }

  /** So far behind that reading on for its sake alone would be of no use. */
  get isHeldUp(): boolean {
    return this.#behind > this.#backlogBytes;
  }

  /** It has caught up enough for the source to go on: from a far one more has to be on the way before it is done. */
  get hasCaughtUp(): boolean {
    return this.#behind <= (this.#backlogBytes * 7) / 8;
  }

  /** Begins to give output. */
  start(): void {
    if (this.#state !== "new") return;
    this.#state = "attached";
    this.pump();
  }

  /** Gives what can be given now. Called when there is more, and when the transport takes more. */
  pump(): void {
    if (this.#state !== "attached" || this.#pumping) return;
    this.#pumping = true;
    while (this.#giveNext());
    this.#pumping = false;
    this.#source.regulate();
  }

  /** Someone else has changed the terminal's size. */
  tellSize(size: TerminalSize): void {
    // One that has not begun is told by what it is begun with.
    if (this.#state === "attached") this.viewer.resized(size);
  }

  /** The client has shown everything before `offset`. False: it claims more than it was given. */
  acknowledge(offset: number): boolean {
    if (offset > this.#offset) return false;
    const before = this.#credit?.acknowledged;
    this.#credit ??= new Credit(Math.max(offset, this.#gaplessFrom), undefined, this.#offset);
    const known = this.#credit.acknowledge(offset);
    // An acknowledgement that is repeated must not put off the timer of a client that waits for more.
    if (this.#credit.acknowledged !== before) this.#clearStall();
    this.pump();
    return known;
  }

  /**
   * Asks whether `length` bytes of input, the client's message number `seq`, are to be written. When they
   * are taken, `write` must follow, if only when the client has gone.
   */
  admit(length: number, seq?: number): InputResult {
    if (this.readOnly || this.#state === "detached") return "refused";
    return this.#source.admit(this, length, seq);
  }

  write(bytes: Uint8Array): void {
    this.#source.write(this, bytes);
  }

  resize(size: TerminalSize): void {
    this.size = size;
    if (!this.readOnly && this.#state !== "detached") this.#source.resize(this);
  }

  detach(): void {
    if (this.#state === "detached") return;
    this.#state = "detached";
    this.#clearStall();
    this.#source.detach(this);
  }

  get #behind(): number {
    return this.#source.ring.end - this.#offset;
  }

  /** A slow client's backlog is as old as its window is: both are kept short. */
  get #backlogBytes(): number {
    const { backlogBytes, windowBytes } = TERMINAL_LIMITS;
    return Math.min(backlogBytes, (this.#credit?.windowBytes ?? windowBytes) / 2);
  }

  /** One frame; false when there is none to give now. */
  #giveNext(): boolean {
    const { ring } = this.#source;
    if (this.#state !== "attached") return false;
    if (this.#offset === ring.end) return this.#giveExit();
    if (this.viewer.unsentBytes > TERMINAL_LIMITS.unsentBytes) return false;
    const room = this.#credit?.room ?? Number.POSITIVE_INFINITY;
    if (room < this.#leastBytes) {
      this.#awaitAcknowledgement();
      return false;
    }
    const start = startOf(ring, this.#text);
    if (this.#offset < start) {
      this.#skip(start);
      return true;
    }
    const frameBytes = this.#credit?.frameBytes ?? TERMINAL_LIMITS.blindFrameBytes;
    const to = Math.min(ring.end, this.#offset + Math.min(frameBytes, room));
    const bytes = this.#whole(ring.view(this.#offset, to), to);
    if (bytes.length === 0) return false;
    const from = this.#offset;
    this.#offset += bytes.length;
    this.#credit?.sent(this.#offset);
    this.viewer.output(bytes, from);
    return true;
  }

  /** What any frame must have room for: a whole character, or a byte. */
  get #leastBytes(): number {
    return this.#text ? 4 : 1;
  }

  /** `bytes` without the beginning of a character whose end is still to come. */
  #whole(bytes: Uint8Array, to: number): Uint8Array {
    const isLast = this.#source.exit !== null && to === this.#source.ring.end;
    return this.#text && !isLast ? bytes.subarray(0, wholeCharacters(bytes)) : bytes;
  }

  /** What it had not got is gone: it is told so, and goes on with what there is. */
  #skip(start: number): void {
    const missing = start - this.#offset;
    this.#offset = start;
    this.#gaplessFrom = start;
    this.#credit?.skipped(start);
    this.viewer.gap(missing, start, this.#source.screen.restoreAt(start));
  }

  #giveExit(): boolean {
    const { exit } = this.#source;
    if (exit === null) return false;
    this.detach();
    this.viewer.exited(exit.code);
    return false;
  }

  #awaitAcknowledgement(): void {
    this.#stallTimer ??= setTimeout(() => {
      this.#stallTimer = undefined;
      this.#credit?.stalled();
      this.pump();
    }, TERMINAL_LIMITS.stallMs);
  }

  #clearStall(): void {
    clearTimeout(this.#stallTimer);
    this.#stallTimer = undefined;
  }
}
