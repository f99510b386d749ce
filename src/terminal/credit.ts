import { TERMINAL_LIMITS } from "./limits.ts";

const {
  windowBytes,
  initialWindowBytes,
  minWindowBytes,
  queueTargetMs,
  delayProbeMs,
  frameBytes,
  minFrameBytes,
} = TERMINAL_LIMITS;

interface Frame {
  end: number;
  bytes: number;
  /** When it was sent. */
  at: number;
}

/** The window shrinks when the queue is so many times as long as it should be. */
const TOO_LONG = 1.5;
/** What delays vary by is taken for no queue: so many times the average of their differences … */
const JITTER_FACTOR = 2;
const MOST_JITTER_MS = 100;
/** … of which each new one counts for this part (RFC 3550, 6.4.1). */
const JITTER_GAIN = 1 / 16;

/**
 * How much may be on the way to a client that acknowledges what it has shown: at most 512 KiB, and for a
 * slow one as little as keeps it busy. What is on the way when someone presses Ctrl-C still has to be read;
 * kernel buffers alone would be seconds of it.
 *
 * The window follows the delay of acknowledgements, as LEDBAT (RFC 6817) does: what a byte takes beyond the
 * least that any took is time in a queue, or what a network's delays vary by. The window becomes what would
 * have given the target, at most twice what it was, and shrinks only when the queue is clearly too long.
 */
export class Credit {
  readonly #now: () => number;
  #window: number = initialWindowBytes;
  #sent: number;
  #acknowledged: number;
  /** Parts that were never sent, between what is acknowledged and what is sent. */
  #gaps: { end: number; bytes: number }[] = [];
  /** What is on the way, frame by frame; tiny ones count as one. */
  readonly #frames: Frame[] = [];
  /**
   * A client that acknowledges every n bytes must never be left waiting with fewer than that. One that
   * acknowledges each frame has no such n: with a smaller window its frames are smaller.
   */
  #largestStep = 0;
  #wasFull = false;
  /** The first frame that was sent with this window: when it has come, the window is looked at. */
  #lookAt: number | null = null;
  #leastDelayMs = Number.POSITIVE_INFINITY;
  #leastDelaySince: number;
  #lastFullDelayMs: number | null = null;
  #jitterMs = 0;

  constructor(offset: number, now: () => number = performance.now.bind(performance)) {
    this.#sent = offset;
    this.#acknowledged = offset;
    this.#now = now;
    this.#leastDelaySince = now();
  }

  get windowBytes(): number {
    return this.#window;
  }

  get frameBytes(): number {
    return Math.min(frameBytes, Math.max(minFrameBytes, this.#window >> 2));
  }

  /** How many bytes may be sent now. */
  get room(): number {
    let onTheWay = this.#sent - this.#acknowledged;
    for (const gap of this.#gaps) onTheWay -= gap.bytes;
    return Math.max(0, this.#window - onTheWay);
  }

  /** Everything before `offset` has been sent. */
  sent(offset: number): void {
    this.#addFrame(offset, offset - this.#sent);
    this.#sent = offset;
    this.#lookAt ??= offset;
    if (this.room === 0) this.#wasFull = true;
  }

  /** What comes next has `offset`; what lies before it will never be sent. */
  skipped(offset: number): void {
    this.#gaps.push({ end: offset, bytes: offset - this.#sent });
    this.#sent = offset;
  }

  /** The client has everything before `offset`. False: it claims more than it was sent. */
  acknowledge(offset: number): boolean {
    if (offset > this.#sent) return false;
    if (offset <= this.#acknowledged) return true;
    const frames = this.#takeFrames(offset);
    if (frames.length > 1) this.#largestStep = Math.max(this.#largestStep, offset - this.#acknowledged);
    this.#acknowledged = offset;
    this.#forgetGaps();
    const last = frames.at(-1);
    if (last && this.#lookAt !== null && offset >= this.#lookAt) {
      this.#lookAt = null;
      this.#adapt(this.#now() - last.at);
    }
    return true;
  }

  /** Nothing has been acknowledged for long: perhaps the client waits for more before it does. */
  grow(): void {
    this.#window = Math.min(windowBytes, this.#window * 2);
  }

  #addFrame(end: number, bytes: number): void {
    const at = this.#now();
    const last = this.#frames.at(-1);
    if (!last || last.bytes + bytes > minFrameBytes) this.#frames.push({ end, bytes, at });
    else Object.assign(last, { end, bytes: last.bytes + bytes, at });
  }

  /** Those that have come whole. */
  #takeFrames(offset: number): Frame[] {
    const taken = this.#frames.findIndex(({ end }) => end > offset);
    return this.#frames.splice(0, taken === -1 ? this.#frames.length : taken);
  }

  #forgetGaps(): void {
    if (this.#gaps.length > 0) this.#gaps = this.#gaps.filter((gap) => gap.end > this.#acknowledged);
  }

  #adapt(delayMs: number): void {
    const now = this.#now();
    if (now - this.#leastDelaySince > delayProbeMs) {
      // Under a lasting flood the least delay would grow with the queue: look at it with little on the way.
      this.#leastDelaySince = now;
      this.#leastDelayMs = Number.POSITIVE_INFINITY;
      this.#resize(minWindowBytes);
      return;
    }
    this.#leastDelayMs = Math.min(this.#leastDelayMs, delayMs);
    this.#learnJitter(delayMs);
    const targetMs = queueTargetMs + JITTER_FACTOR * Math.min(this.#jitterMs, MOST_JITTER_MS);
    const queuedMs = delayMs - this.#leastDelayMs;
    const factor = (this.#leastDelayMs + targetMs) / delayMs;
    if (queuedMs > TOO_LONG * targetMs) this.#resize(this.#window * factor);
    else if (factor > 1 && this.#wasFull) this.#resize(this.#window * Math.min(2, factor));
    this.#wasFull = false;
  }

  /** Between full windows only: from a prompt to a flood a delay grows by its queue. */
  #learnJitter(delayMs: number): void {
    if (this.#wasFull && this.#lastFullDelayMs !== null) {
      const difference = Math.abs(delayMs - this.#lastFullDelayMs);
      this.#jitterMs += (difference - this.#jitterMs) * JITTER_GAIN;
    }
    this.#lastFullDelayMs = this.#wasFull ? delayMs : null;
  }

  #resize(bytes: number): void {
    const least = Math.max(minWindowBytes, Math.min(windowBytes, 2 * this.#largestStep));
    this.#window = Math.min(windowBytes, Math.max(least, Math.floor(bytes)));
  }
}
