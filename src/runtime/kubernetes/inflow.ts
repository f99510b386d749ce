import { ByteQueue } from "../../lib/byte-queue.ts";
import type { Window } from "./window.ts";

/** Of what waited readers get so much at a time: they may have enough of it soon. */
const PART_BYTES = 64 * 1024;

/**
 * Output that has come, on its way to readers: while they are paused it waits here, at most a window of it. So a
 * window need not fit what they keep themselves.
 */
export class Inflow {
  readonly #window: Window;
  readonly #give: (bytes: Uint8Array) => void;
  readonly #waiting = new ByteQueue();
  #isGiving = false;

  /** @param give takes bytes that are valid during the call only; it may pause and resume */
  constructor(window: Window, give: (bytes: Uint8Array) => void) {
    this.#window = window;
    this.#give = give;
  }

  /** Readers have been given all there is. */
  get isEmpty(): boolean {
    return !this.#isGiving && this.#waiting.length === 0;
  }

  receive(bytes: Uint8Array): void {
    this.#window.receive(bytes.length);
    if (this.#window.isPaused || !this.isEmpty) this.#waiting.push(bytes);
    else this.#passOn(bytes);
  }

  /** Readers were resumed. */
  resume(): void {
    this.#passOnWhile(() => !this.#window.isPaused);
  }

  /** Whether readers can take it or not: nothing follows on it. */
  passAllOn(): void {
    this.#passOnWhile(() => true);
  }

  #passOnWhile(mayGoOn: () => boolean): void {
    // What is given may resume its reader.
    if (this.#isGiving) return;
    this.#isGiving = true;
    while (this.#waiting.length > 0 && mayGoOn()) this.#passOn(this.#waiting.take(PART_BYTES));
    this.#isGiving = false;
  }

  #passOn(bytes: Uint8Array): void {
    this.#window.passOn(bytes.length);
    this.#give(bytes);
  }
}
