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

/**
 * How much may be on the way to a client that acknowledges what it has shown: at most 512 KiB, and for a
 * slow one as little as keeps it busy. What is on the way when someone presses Ctrl-C still has to be read;
 * kernel buffers alone would be seconds of it.
 *
 * The window follows the delay of acknowledgements, as LEDBAT (RFC 6817) does: what a byte takes beyond the
 * least that any took is time in a queue. Under the target the window doubles, over twice the target it
 * shrinks in proportion.
 */
export class Credit {
  readonly #now: () => number;
  #window: number = initialWindowBytes;
  #sent: number;
  #acknowledged: number;
  /** Parts that were never sent, between what is acknowledged and what is sent. */
  #gaps: { end: number; bytes: number }[] = [];
  /** A client that acknowledges every n bytes must never be left waiting with fewer than that. */
  #largestStep = 0;
  #wasFull = false;
  /** One frame at a time is timed from its sending to its acknowledgement. */
  #probe: { offset: number; at: number } | null = null;
  #leastDelayMs = Number.POSITIVE_INFINITY;
  #leastDelaySince: number;

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
    this.#sent = offset;
    if (this.room === 0) this.#wasFull = true;
    this.#probe ??= { offset, at: this.#now() };
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
    this.#largestStep = Math.max(this.#largestStep, Math.min(windowBytes, offset - this.#acknowledged));
    this.#acknowledged = offset;
    this.#forgetGaps();
    if (this.#probe && offset >= this.#probe.offset) {
      const delayMs = this.#now() - this.#probe.at;
      this.#probe = null;
      this.#adapt(delayMs);
    }
    return true;
  }

  /** Nothing has been acknowledged for long: perhaps the client waits for more before it does. */
  grow(): void {
    this.#window = Math.min(windowBytes, this.#window * 2);
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
    const queuedMs = delayMs - this.#leastDelayMs;
    if (queuedMs > 2 * queueTargetMs) {
      this.#resize(this.#window * ((this.#leastDelayMs + queueTargetMs) / delayMs));
    } else if (queuedMs < queueTargetMs && this.#wasFull) this.grow();
    this.#wasFull = false;
  }

  #resize(bytes: number): void {
    const least = Math.max(minWindowBytes, 2 * this.#largestStep);
    this.#window = Math.min(windowBytes, Math.max(least, Math.floor(bytes)));
  }
}
