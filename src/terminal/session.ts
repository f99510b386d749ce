import { ByteRing } from "../lib/ring.ts";
import type { HeldTerminal, Pty, TerminalJobs, TerminalOptions, TerminalSize } from "../runtime/runtime.ts";
import { Attachment, type AttachmentOptions, type Source } from "./attachment.ts";
import { type InputResult, TerminalInput, unusedStream } from "./input.ts";
import { TERMINAL_LIMITS } from "./limits.ts";
import { Screen } from "./screen.ts";

export interface SessionOptions {
  id: string;
  environmentId: string;
  size: TerminalSize;
  now: () => number;
  /** Where it goes on, when another server has begun it. */
  held?: HeldTerminal;
  /** Something was typed or printed; at most once a second. */
  onActivity(): void;
  onBytes(direction: "input" | "output", bytes: number): void;
  /** The way to the shell was lost. */
  onLost(): void;
}

/**
 * One terminal in an environment: a PTY, the last 1 MiB of what it printed, and whoever looks at it.
 *
 * The size is that of the attachment that last typed or changed its own (tmux calls it `latest`): a phone
 * left lying with the same terminal open does not narrow it for the keyboard that is used. Viewers that
 * can't type never decide.
 */
export class Session implements Source {
  readonly id: string;
  readonly environmentId: string;
  readonly createdAt: number;
  readonly ring: ByteRing;
  readonly screen = new Screen();
  exit: { code: number | null } | null = null;
  /** When the last attachment left, or the shell ended; null while someone is attached. */
  detachedAt: number | null;
  readonly #options: SessionOptions;
  readonly #attachments = new Set<Attachment>();
  readonly #input: TerminalInput;
  #pty: Pty | null = null;
  #size: TerminalSize;
  #isPaused = false;
  #activeAt = Number.NEGATIVE_INFINITY;
  #killTimer: Timer | undefined;
  #replaying: { until: number; done: () => void } | null = null;

  constructor(options: SessionOptions) {
    this.#options = options;
    this.id = options.id;
    this.environmentId = options.environmentId;
    this.#size = options.size;
    this.detachedAt = options.now();
    this.createdAt = options.held?.createdAtMs ?? this.detachedAt;
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

  /** Goes on with a shell that is there; what it had printed has been given when this resolves. */
  async resume(held: HeldTerminal): Promise<void> {
    this.#input.restore(held.input);
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#replaying = { until: held.endOffset, done: resolve };
    this.#begin(held.begin(this.#callbacks()));
    this.#checkReplay();
    await promise;
  }

  #checkReplay(): void {
    const replaying = this.#replaying;
    if (!replaying || (this.ring.end < replaying.until && this.exit === null)) return;
    this.#replaying = null;
    replaying.done();
  }

  #callbacks(): Omit<TerminalOptions, "size" | "sessionId"> {
    return {
      onData: (bytes) => this.#print(bytes),
      onGap: (bytes) => this.#miss(bytes),
      onExit: (code) => this.#finish(code),
      onDrain: () => this.#drain(),
      onTaken: (place) => this.#input.confirm(place),
    };
  }

  #begin(pty: Pty): void {
    this.#pty = pty;
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

  /** A new viewer. A connection that the same client still seems to have is displaced. */
  attach(options: AttachmentOptions): Attachment {
    for (const other of [...this.#attachments]) {
      if (other.clientId !== options.clientId) continue;
      other.viewer.displaced();
      other.detach();
    }
    const input = options.readOnly ? unusedStream() : this.#input.attach(options.clientId);
    const attachment = new Attachment(this, input, options);
    this.#attachments.add(attachment);
    this.detachedAt = null;
    this.resize(attachment);
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
   * another, and with nobody attached what does not fit the scrollback is a gap.
   */
  regulate(): void {
    if (this.exit !== null) return;
    const { size } = this.#attachments;
    if (!this.#isPaused) {
      if (size === 0 || !this.#every((attachment) => attachment.isHeldUp)) return;
      this.#isPaused = true;
      this.#pty?.pause();
    } else if (size === 0 || !this.#every((attachment) => !attachment.hasCaughtUp)) {
      this.#isPaused = false;
      this.#pty?.resume();
    }
  }

  async jobs(): Promise<TerminalJobs | null> {
    return (await this.#pty?.jobs?.()) ?? null;
  }

  /** Ends the shell and what runs in it. Viewers get its last output and its exit code. */
  kill(): void {
    if (this.exit !== null) return;
    this.#pty?.kill();
    this.#killTimer ??= setTimeout(() => this.#finish(null), TERMINAL_LIMITS.killMs);
  }

  /** Lets go of a terminal that can run on without this server; another one ends. */
  release(): void {
    if (this.exit !== null) return;
    if (!this.#pty?.release) {
      this.kill();
      return;
    }
    this.#pty.release();
    // Its viewers' connections end too, and are not told of an end of the shell.
    this.exit = { code: null };
  }

  #print(bytes: Uint8Array): void {
    if (this.exit !== null || bytes.length === 0) return;
    this.#options.onBytes("output", bytes.length);
    // What another server has seen it print is no activity now.
    if (!this.#replaying) this.#beActive();
    // More at once than readers may be behind would push out what a quick one is just about to get.
    const step = TERMINAL_LIMITS.backlogBytes;
    for (let at = 0; at < bytes.length; at += step) {
      const part = bytes.length > step ? bytes.subarray(at, at + step) : bytes;
      this.screen.push(part, this.ring.end);
      this.ring.push(part);
      for (const attachment of this.#attachments) attachment.pump();
    }
    this.#checkReplay();
  }

  /** Output was lost on the way here: who has not seen all that came before it is told of one gap. */
  #miss(bytes: number): void {
    if (this.exit !== null) return;
    this.screen.skip();
    this.ring.skip(bytes);
    for (const attachment of this.#attachments) attachment.pump();
    this.#checkReplay();
  }

  #finish(code: number | null): void {
    if (this.exit !== null) return;
    clearTimeout(this.#killTimer);
    this.exit = { code };
    this.detachedAt ??= this.#options.now();
    if (code === null) this.#options.onLost();
    this.#checkReplay();
    for (const attachment of [...this.#attachments]) attachment.pump();
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
