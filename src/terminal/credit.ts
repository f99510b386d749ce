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
/** Text is sent in whole characters: with less room than the longest one has, the window is full. */
const CHARACTER_BYTES = 4;
/** A step of acknowledgements that no longer occurs decays: half of it is forgotten over about so many times its bytes. */
const STEP_MEMORY = 2;
/** The window of a client that has acknowledged fewer bytes than it at once grows only so many stalls in. */
const PATIENT_STALLS = 10;

/**
 * How much may be on the way to a client that acknowledges what it has shown: at most 512 KiB, and for a
 * slow one as little as keeps it busy. What is on the way when someone presses Ctrl-C still has to be read;
 * kernel buffers alone would be seconds of it.
 *
 * The window follows the delay of acknowledgements, as LEDBAT (RFC 6817) does: what a byte takes beyond the
 * least that any took is time in a queue, or what a network's delays vary by. The window becomes what would
 * have given the target; it doubles while there is hardly a queue, as there is none for long where a client is
 * far away, and shrinks only when the queue is clearly too long.
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
  /**
   * The first frame that filled this window: when it has come, the window is looked at. The first of a flood
   * has nothing before it, and would let the window grow with each command that prints much.
   */
  #lookAt: number | null = null;
  /** The fewest bytes that it has acknowledged at once when the window was full. */
  #enoughBytes = Number.POSITIVE_INFINITY;
  #stalls = 0;
  #leastDelayMs = Number.POSITIVE_INFINITY;
  #leastDelaySince: number;
  #lastDelayMs: number | null = null;
  #jitterMs = 0;

  /** @param sent where more is on the way already, the end of it */
  constructor(
    acknowledged: number,
    now: () => number = performance.now.bind(performance),
    sent: number = acknowledged,
  ) {
    this.#sent = sent;
    this.#acknowledged = acknowledged;
    this.#now = now;
    this.#leastDelaySince = now();
  }

  get windowBytes(): number {
    return this.#window;
  }

  get frameBytes(): number {
    return Math.min(frameBytes, Math.max(minFrameBytes, this.#window >> 2));
  }

  /** The client has everything before it. */
  get acknowledged(): number {
    return this.#acknowledged;
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
    if (this.#isFull) this.#lookAt ??= offset;
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
    this.#stalls = 0;
    if (this.#isFull) this.#enoughBytes = Math.min(this.#enoughBytes, offset - this.#acknowledged);
    const frames = this.#takeFrames(offset);
    this.#learnStep(offset - this.#acknowledged, frames.length);
    this.#acknowledged = offset;
    this.#forgetGaps();
    const last = frames.at(-1);
    if (!last) return true;
    const delayMs = this.#now() - last.at;
    this.#leastDelayMs = Math.min(this.#leastDelayMs, delayMs);
    if (this.#lookAt !== null && offset >= this.#lookAt) {
      this.#lookAt = null;
      this.#adapt(delayMs);
    }
    return true;
  }

  /**
   * A full window has brought no acknowledgement for a second: perhaps the client waits for more before it
   * sends one. One for which so much was enough before is slow or cut off, and more would be in its way.
   */
  stalled(): void {
    this.#stalls += 1;
    if (this.#window >= this.#enoughBytes && this.#stalls % PATIENT_STALLS !== 0) return;
    this.#window = Math.min(windowBytes, this.#window * 2);
  }

  get #isFull(): boolean {
    return this.room < CHARACTER_BYTES;
  }

  /** One frame tells no step, but that a longer one is no longer waited for. */
  #learnStep(bytes: number, frames: number): void {
    const known = this.#largestStep;
    if (bytes < known) this.#largestStep -= (known - bytes) * Math.min(1, bytes / (STEP_MEMORY * known));
    else if (frames > 1) this.#largestStep = bytes;
  }

  #addFrame(end: number, bytes: number): void {
    const at = this.#now();
    const last = this.#frames.at(-1);
    if (!last || last.bytes + bytes > minFrameBytes) {
      this.#frames.push({ end, bytes, at });
      return;
    }
    last.end = end;
    last.bytes += bytes;
    last.at = at;
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
    this.#learnJitter(delayMs);
    const targetMs = queueTargetMs + JITTER_FACTOR * this.#jitterMs;
    const queuedMs = delayMs - this.#leastDelayMs;
    const factor = (this.#leastDelayMs + targetMs) / delayMs;
    if (queuedMs > TOO_LONG * targetMs) this.#resize(this.#window * factor);
    else if (queuedMs < targetMs / 2) this.#resize(this.#window * 2);
    else if (factor > 1) this.#resize(this.#window * factor);
  }

  /** Of full windows only: from a prompt to a flood a delay grows by its queue. A pause of minutes is one delay. */
  #learnJitter(delayMs: number): void {
    const difference = Math.min(MOST_JITTER_MS, Math.abs(delayMs - (this.#lastDelayMs ?? delayMs)));
    this.#jitterMs += (difference - this.#jitterMs) * JITTER_GAIN;
    this.#lastDelayMs = delayMs;
  }

  #resize(bytes: number): void {
    const least = Math.max(minWindowBytes, Math.min(windowBytes, Math.ceil(2 * this.#largestStep)));
    this.#window = Math.min(windowBytes, Math.max(least, Math.floor(bytes)));
  }
}
