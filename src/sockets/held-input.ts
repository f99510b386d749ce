import { ByteQueue } from "../lib/byte-queue.ts";
import type { TokenBucket } from "../lib/token-bucket.ts";
import { SOCKET_LIMITS } from "./limits.ts";

const { inputGroupBytes, inputGroupMs } = SOCKET_LIMITS;

interface HeldInputOptions {
  /** Messages that the client may still send; null: as many as it likes. */
  messages: TokenBucket | null;
  write(bytes: Uint8Array): void;
  /** False: the terminal takes nothing now; `run` is to be called when it does. */
  flows(): boolean;
  /** Input has begun to be held back by the limit, or all that was is written. */
  onLimit(isOver: boolean): void;
  now?: () => number;
}

/**
 * Input on its way to a terminal under the message limit. What arrives within 600 ms of a message's first
 * frame belongs to that message, one for each 64 KiB begun, so that typing and pasting never reach the
 * limit; what goes beyond is held back and written in order as the limit allows.
 */
export class HeldInput {
  readonly #options: HeldInputOptions;
  readonly #now: () => number;
  readonly #queue = new ByteQueue();
  #isOver = false;
  #timer: Timer | undefined;
  /** The message that input belongs to now: when it began, and how many bytes more it may have. */
  #groupAt = Number.NEGATIVE_INFINITY;
  #groupBytes = 0;

  constructor(options: HeldInputOptions) {
    this.#options = options;
    this.#now = options.now ?? performance.now.bind(performance);
  }

  get heldBytes(): number {
    return this.#queue.length;
  }

  /** `bytes` may be used by the caller again afterwards. */
  push(bytes: Uint8Array): void {
    const { flows, write } = this.#options;
    if (this.#queue.length === 0 && flows() && this.#allowed(bytes.length) >= bytes.length) {
      this.#groupBytes -= bytes.length;
      write(bytes);
      return;
    }
    this.#queue.push(bytes);
    this.run();
  }

  /** Writes what may be written now. */
  run(): void {
    const { flows, messages, onLimit } = this.#options;
    while (this.#queue.length > 0) {
      if (!flows()) return;
      const allowed = this.#allowed(Math.min(this.#queue.length, inputGroupBytes));
      if (allowed === 0) {
        this.#timer ??= setTimeout(() => {
          this.#timer = undefined;
          this.run();
        }, messages?.waitMs() ?? 0);
        if (!this.#isOver) onLimit(true);
        this.#isOver = true;
        return;
      }
      const part = this.#queue.take(allowed);
      this.#groupBytes -= part.length;
      this.#options.write(part);
    }
    this.#nothingHeld();
  }

  /** Writes all of it at once: the client leaves this terminal, and what was taken from it is not lost. */
  flush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    while (this.#queue.length > 0) this.#options.write(this.#queue.take(Number.POSITIVE_INFINITY));
    this.#nothingHeld();
  }

  #nothingHeld(): void {
    if (this.#isOver) this.#options.onLimit(false);
    this.#isOver = false;
  }

  /** How many of `wanted` bytes may be written now; begins messages where it takes that. */
  #allowed(wanted: number): number {
    const { messages } = this.#options;
    if (messages === null) {
      this.#groupBytes = Number.POSITIVE_INFINITY;
      return this.#groupBytes;
    }
    const now = this.#now();
    if (now - this.#groupAt >= inputGroupMs) {
      if (!messages.take()) return 0;
      this.#groupAt = now;
      this.#groupBytes = inputGroupBytes;
    }
    while (this.#groupBytes < wanted && messages.take()) this.#groupBytes += inputGroupBytes;
    return this.#groupBytes;
  }
}
