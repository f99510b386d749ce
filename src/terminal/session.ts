import { ByteRing } from "../lib/ring.ts";
import { TokenBucket } from "../lib/token-bucket.ts";
import {
  type HeldTerminal,
  type Pty,
  RuntimeUnreachable,
  type TerminalJobs,
  type TerminalOptions,
  type TerminalSize,
} from "../runtime/runtime.ts";
import { Attachment, type AttachmentOptions, type Source } from "./attachment.ts";
import { type InputResult, TerminalInput, unusedStream } from "./input.ts";
import { TERMINAL_LIMITS } from "./limits.ts";
import { Screen } from "./screen.ts";

export interface SessionOptions {
  id: string;
  environmentId: string;
  size: TerminalSize;
  /** A session that is gone, for whose clients it goes on. */
  inPlaceOf?: string | null;
  /** A clock that nobody sets, in milliseconds. */
  now: () => number;
  /** Where it goes on, when another server has begun it. */
  held?: HeldTerminal;
  /** Something was typed or printed; at most once a second. */
  onActivity(): void;
  onBytes(direction: "input" | "output", bytes: number): void;
  /** The way to the shell was lost. */
  onLost(): void;
}

/** As shells have it for SIGKILL. */
const KILLED_EXIT_CODE = 128 + 9;

/**
 * One terminal in an environment: a PTY, the last 1 MiB of what it printed (3 MiB where it can outlive the server),
 * and whoever looks at it.
 *
 * The size is that of the attachment that last typed or changed its own (tmux calls it `latest`): a phone
 * left lying with the same terminal open does not narrow it for the keyboard that is used. Viewers that
 * can't type never decide.
 */
export class Session implements Source {
  readonly id: string;
  readonly environmentId: string;
  readonly inPlaceOf: string | null;
  /** Milliseconds since the epoch. */
  readonly createdAt: number;
  readonly ring: ByteRing;
  readonly screen = new Screen();
  exit: { code: number | null } | null = null;
  /** When the last attachment left, or the shell ended, by `now`; null while someone is attached. */
  detachedAt: number | null;
  readonly #options: SessionOptions;
  readonly #attachments = new Set<Attachment>();
  readonly #input: TerminalInput;
  #pty: Pty | null = null;
  #size: TerminalSize;
  #isPaused = false;
  #activeAt = Number.NEGATIVE_INFINITY;
  #killTimer: Timer | undefined;
  /** Until it has run out, nothing is printed unseen; see `regulate`. */
  #restTimer: Timer | undefined;
  readonly #unseen = new TokenBucket({
    capacity: TERMINAL_LIMITS.unseenBurstBytes,
    perMinute: TERMINAL_LIMITS.unseenBytesPerMinute,
  });
  /** Printed, and the attachments were not told. */
  #gatheredBytes = 0;
  #gathering: ReturnType<typeof setImmediate> | undefined;
  /** Printed unseen and not taken from there yet. */
  #unseenBytes = 0;
  #replaying: { until: number; done: () => void; stallTimer: Timer } | null = null;

  constructor(options: SessionOptions) {
    this.#options = options;
    this.id = options.id;
    this.environmentId = options.environmentId;
    this.inPlaceOf = options.inPlaceOf ?? null;
    this.#size = options.size;
    this.detachedAt = options.now();
    this.createdAt = options.held?.createdAtMs ?? Date.now();
    this.ring = new ByteRing(TERMINAL_LIMITS.scrollbackBytes, options.held?.offset);
    this.#input = new TerminalInput((bytes, place) => this.#pty?.write(bytes, place) ?? false);
  }

  get size(): TerminalSize {
    return this.#size;
  }

  get attached(): number {
    return this.#attachments.size;
  }

  /** The way to its shell was lost; that itself may run, to be taken up anew. */
  get isLost(): boolean {
    return this.exit !== null && this.exit.code === null;
  }

  get inputFlows(): boolean {
    return this.#input.flows;
  }

  /** Starts the shell. */
  async start(open: (options: TerminalOptions) => Promise<Pty>): Promise<void> {
    this.#begin(await open({ size: this.#size, sessionId: this.id, ...this.#callbacks() }));
  }

  /**
   * Goes on with a shell that is there; what it had printed has been given when this resolves. It prints on
   * when someone is attached, or has had the time to come back: a flood would push out of the scrollback what
   * its clients are about to ask for.
   *
   * @throws RuntimeUnreachable when what it had printed does not come: the shell is let go of
   */
  async resume(held: HeldTerminal): Promise<void> {
    this.#input.restore(held.input);
    this.screen.skip(held.modes, held.offset);
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const stallTimer = setTimeout(() => {
      this.#replaying = null;
      this.release();
      reject(new RuntimeUnreachable("What the terminal has printed does not come"));
    }, TERMINAL_LIMITS.replayStallMs);
    this.#replaying = { until: held.endOffset, done: resolve, stallTimer };
    this.#begin(held.begin(this.#callbacks()));
    this.#checkReplay();
    await promise;
  }

  #checkReplay(): void {
    const replaying = this.#replaying;
    if (!replaying) return;
    if (this.ring.end < replaying.until && this.exit === null) {
      replaying.stallTimer.refresh();
      return;
    }
    clearTimeout(replaying.stallTimer);
    this.#replaying = null;
    if (this.exit === null) {
      this.#isPaused = true;
      this.#rest(TERMINAL_LIMITS.returnMs);
    }
    replaying.done();
  }

  #callbacks(): Omit<TerminalOptions, "size" | "sessionId"> {
    return {
      onData: (bytes) => this.#print(bytes),
      onGap: (bytes, modes) => this.#miss(bytes, modes),
      onExit: (code) => this.#finish(code),
      onDrain: () => this.#drain(),
      onTaken: (place) => this.#input.confirm(place),
    };
  }

  #begin(pty: Pty): void {
    this.#pty = pty;
    if (pty.release) this.ring.widen(TERMINAL_LIMITS.heldScrollbackBytes);
    this.#input.confirms = pty.confirmsInput ?? false;
    // What was said to it before it was there.
    if (this.#isPaused) pty.pause();
  }

  /**
   * Waits, but not for ever, until what a client has typed on an earlier connection is taken: it is told so
   * on its next one, and keeps nothing of it to send again.
   */
  async inputSettled(clientId: string): Promise<void> {
    const end = this.#options.now() + TERMINAL_LIMITS.settleMs;
    while (!this.#input.isSettled(clientId) && this.exit === null && this.#options.now() < end) {
      await Bun.sleep(TERMINAL_LIMITS.settleCheckMs);
    }
  }

  /** A new viewer. A connection of its kind that the same client still seems to have is displaced. */
  attach(options: AttachmentOptions): Attachment {
    for (const other of [...this.#attachments]) {
      if (other.clientId !== options.clientId || other.readOnly !== options.readOnly) continue;
      other.viewer.displaced();
      other.detach();
    }
    const input = options.readOnly ? unusedStream() : this.#input.attach(options.clientId, options.inputFrom);
    const attachment = new Attachment(this, input, options);
    this.#attachments.add(attachment);
    this.detachedAt = null;
    this.resize(attachment);
    this.#endRest();
    return attachment;
  }

  detach(attachment: Attachment): void {
    this.#attachments.delete(attachment);
    if (!attachment.readOnly) this.#input.detach(attachment.input);
    if (this.#attachments.size === 0) this.detachedAt = this.#options.now();
    this.regulate();
  }

  admit(attachment: Attachment, length: number, seq: number | undefined): InputResult {
    return this.#input.admit(attachment.input, length, seq);
  }

  write(attachment: Attachment, bytes: Uint8Array): void {
    this.resize(attachment);
    this.#input.write(attachment.input, bytes);
    this.#options.onBytes("input", bytes.length);
    this.#beActive();
  }

  resize(attachment: Attachment): void {
    const { size } = attachment;
    if (attachment.readOnly || size === null || isSameSize(size, this.#size)) return;
    this.#size = size;
    this.#pty?.resize(size);
    for (const other of this.#attachments) if (other !== attachment) other.tellSize(size);
  }

  /**
   * Holds the PTY up while every reader is behind, and only then: one that keeps up is never slowed by
   * another, and with nobody attached what does not fit the scrollback is a gap. Unseen it rests now and then.
   */
  regulate(): void {
    if (this.exit !== null) return;
    const isHeldUp =
      this.#attachments.size === 0
        ? this.#restTimer !== undefined
        : this.#every((attachment) => (this.#isPaused ? !attachment.hasCaughtUp : attachment.isHeldUp));
    if (isHeldUp === this.#isPaused) return;
    this.#isPaused = isHeldUp;
    if (isHeldUp) this.#pty?.pause();
    else this.#pty?.resume();
  }

  /** The scrollback keeps the last of what nobody sees: more than so much of it burns the processor for nothing. */
  #restUnseen(bytes: number): void {
    if (this.#attachments.size > 0 || this.#replaying || this.#killTimer) return;
    this.#unseenBytes = Math.min(this.#unseenBytes + bytes, TERMINAL_LIMITS.unseenBurstBytes);
    // What is on its way while it rests counts too.
    if (this.#restTimer) return;
    if (this.#unseen.take(this.#unseenBytes)) this.#unseenBytes = 0;
    else this.#rest(this.#unseen.waitMs(this.#unseenBytes));
  }

  #rest(ms: number): void {
    this.#restTimer = setTimeout(() => this.#endRest(), ms);
    this.regulate();
  }

  #endRest(): void {
    clearTimeout(this.#restTimer);
    this.#restTimer = undefined;
    this.regulate();
  }

  async jobs(): Promise<TerminalJobs | null> {
    return (await this.#pty?.jobs?.()) ?? null;
  }

  /** Ends the shell and what runs in it. Viewers get its last output and its exit code. */
  kill(): void {
    if (this.exit !== null) return;
    // Without an exit code its clients would take it for lost, and begin another.
    this.#killTimer ??= setTimeout(() => this.#finish(KILLED_EXIT_CODE), TERMINAL_LIMITS.killMs);
    this.#endRest();
    this.#pty?.kill();
  }

  /** Lets go of a terminal that can run on without this server; another one ends. */
  release(): void {
    if (this.exit !== null) return;
    if (!this.#pty?.release) {
      this.kill();
      return;
    }
    this.#clearTimers();
    this.#pty.release();
    // Its viewers' connections end too, and are not told of an end of the shell.
    this.exit = { code: null };
    this.#checkReplay();
  }

  #print(bytes: Uint8Array): void {
    if (this.exit !== null || bytes.length === 0) return;
    // More at once than readers may be behind would push out what a quick one is just about to get.
    const step = TERMINAL_LIMITS.backlogBytes;
    for (let at = 0; at < bytes.length; at += step) {
      const part = bytes.length > step ? bytes.subarray(at, at + step) : bytes;
      const offset = this.ring.end;
      this.ring.push(part);
      this.#giveOn(part.length);
      this.screen.push(part, offset);
    }
    this.#options.onBytes("output", bytes.length);
    // What another server has seen it print is no activity now.
    if (!this.#replaying) this.#beActive();
    this.#restUnseen(bytes.length);
    this.#checkReplay();
  }

  /** Tells the attachments of `length` bytes more: at once, or with those that follow. */
  #giveOn(length: number): void {
    const { gatherFromBytes, gatherBytes } = TERMINAL_LIMITS;
    this.#gatheredBytes += length;
    if (length < gatherFromBytes || this.#gatheredBytes >= gatherBytes) this.#pump();
    else this.#gathering ??= setImmediate(() => this.#pump());
  }

  #pump(): void {
    this.#gatheredBytes = 0;
    if (this.#gathering) clearImmediate(this.#gathering);
    this.#gathering = undefined;
    for (const attachment of this.#attachments) attachment.pump();
  }

  /** Output was lost on the way here: who has not seen all that came before it is told of one gap. */
  #miss(bytes: number, modes: string): void {
    if (this.exit !== null) return;
    this.#pump();
    this.ring.skip(bytes);
    this.screen.skip(modes, this.ring.end);
    this.#pump();
    this.#checkReplay();
  }

  #finish(code: number | null): void {
    if (this.exit !== null) return;
    this.#clearTimers();
    // One that was to end is not lost, however its end comes.
    this.exit = { code: code ?? (this.#killTimer === undefined ? null : KILLED_EXIT_CODE) };
    this.detachedAt ??= this.#options.now();
    if (this.isLost) this.#options.onLost();
    this.#checkReplay();
    for (const attachment of [...this.#attachments]) attachment.pump();
  }

  #clearTimers(): void {
    clearTimeout(this.#killTimer);
    clearTimeout(this.#restTimer);
  }

  #drain(): void {
    this.#input.drained();
    if (!this.#input.flows) return;
    for (const attachment of this.#attachments) attachment.viewer.inputFlows();
  }

  #beActive(): void {
    const now = this.#options.now();
    if (now - this.#activeAt < TERMINAL_LIMITS.activityEveryMs) return;
    this.#activeAt = now;
    this.#options.onActivity();
  }

  #every(holds: (attachment: Attachment) => boolean): boolean {
    for (const attachment of this.#attachments) if (!holds(attachment)) return false;
    return true;
  }
}

function isSameSize(a: TerminalSize, b: TerminalSize): boolean {
  return a.cols === b.cols && a.rows === b.rows;
}
