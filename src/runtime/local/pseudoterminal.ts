import { ptr } from "bun:ffi";
import { closeSync, constants, openSync } from "node:fs";
import { lazily } from "../../lib/lazily.ts";
import type { TerminalSize } from "../runtime.ts";
import { libc, O_CLOEXEC } from "./libc.ts";
import { Poller } from "./poller.ts";

/** ioctl_tty(2), as every processor that Bun runs on has them. */
const TIOCSPTLCK = 0x40045431;
const TIOCGPTN = 0x80045430;
const TIOCSWINSZ = 0x5414;

/** n_tty gives a page less one byte at a time, however much there is. */
const PAGE_BYTES = 4095;
/** What was read last, of whichever terminal: two pages, since the kernel fills the next one while they are taken. */
const piece = new Uint8Array(2 * PAGE_BYTES);
const pages = [piece.subarray(0, PAGE_BYTES), piece.subarray(PAGE_BYTES)];

/** Of all terminals. */
const poller = lazily(() => new Poller());

function control(fd: number, request: number, argument: Int32Array | Uint16Array): void {
  if (libc().ioctl(fd, request, ptr(argument)) !== 0)
    throw new Error("a pseudo-terminal can't be controlled");
}

/**
 * Our side of a pseudo-terminal; the other is `openTerminal`'s, for a child. Bun has terminals of its own, but
 * reads them whether one can take it or not: stopping their output instead (tcflow, XOFF) makes the kernel drop
 * line ends, since n_tty does not look whether both bytes of one were taken.
 */
export class Pseudoterminal {
  readonly #fd: number;
  #isClosed = false;
  #ended: () => void = () => {};

  /** @throws when the system has none left */
  constructor(size: TerminalSize) {
    const { O_RDWR, O_NOCTTY, O_NONBLOCK } = constants;
    this.#fd = openSync("/dev/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    try {
      poller().add(this.#fd);
      control(this.#fd, TIOCSPTLCK, new Int32Array([0]));
      this.resize(size);
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** A descriptor of the other side, for the caller to close. */
  openTerminal(): number {
    const number = new Int32Array(1);
    control(this.#fd, TIOCGPTN, number);
    return openSync(`/dev/pts/${number[0]}`, constants.O_RDWR | constants.O_NOCTTY | O_CLOEXEC);
  }

  /**
   * Gives what is printed to `take`, valid during the call. While what that returns has not resolved nothing is read:
   * what is not taken holds its program up. Resolves when nobody has the other side any more, or it is closed.
   */
  read(take: (bytes: Uint8Array) => Promise<void> | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#ended = resolve;
      const readOn = () => {
        try {
          this.#readOn(take, readOn);
        } catch (error) {
          reject(error);
        }
      };
      readOn();
    });
  }

  /** Reads all that is there, unless it has to wait for `take`; `readOn` is called for more. */
  #readOn(take: (bytes: Uint8Array) => Promise<void> | undefined, readOn: () => void): void {
    for (;;) {
      const isLast = this.#isClosed || poller().isHungUp(this.#fd);
      const bytes = this.#readNow();
      if (!bytes && isLast) {
        this.#ended();
        return;
      }
      const taken = bytes && take(bytes);
      if (taken) {
        void taken.then(readOn);
        return;
      }
      if (!isLast && bytes?.byteLength !== piece.byteLength) {
        poller().wait(this.#fd, readOn);
        return;
      }
    }
  }

  #readNow(): Uint8Array | null {
    if (this.#isClosed) return null;
    const { read } = libc();
    let length = 0;
    for (const page of pages) {
      const got = Number(read(this.#fd, page, PAGE_BYTES));
      length += Math.max(0, got);
      if (got < PAGE_BYTES) break;
    }
    return length > 0 ? piece.subarray(0, length) : null;
  }

  /** How many of `bytes` were taken; none while the input queue is full, or once nobody has the other side. */
  write(bytes: Uint8Array): number {
    if (this.#isClosed) return 0;
    // Between a key and its echo, each microsecond counts: Bun's own takes more of them, and throws where it may block.
    return Math.max(0, Number(libc().write(this.#fd, bytes, bytes.byteLength)));
  }

  resize({ cols, rows }: TerminalSize): void {
    if (!this.#isClosed) control(this.#fd, TIOCSWINSZ, new Uint16Array([rows, cols, 0, 0]));
  }

  /** Hangs up: the programs that still have the other side get SIGHUP. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    poller().remove(this.#fd);
    closeSync(this.#fd);
    this.#ended();
  }
}
