import { dlopen, FFIType, ptr } from "bun:ffi";
import { closeSync, constants, openSync } from "node:fs";
import { giveBack } from "../../lib/give-back.ts";
import type { TerminalSize } from "../runtime.ts";

/** ioctl_tty(2), as every processor that Bun runs on has them. */
const TIOCSPTLCK = 0x40045431;
const TIOCGPTN = 0x80045430;
const TIOCSWINSZ = 0x5414;
/** open(2): no child gets it. */
const O_CLOEXEC = 0o2000000;

/** glibc's and musl's names. */
const C_LIBRARIES = ["libc.so.6", "libc.musl-x86_64.so.1", "libc.musl-aarch64.so.1"];

type CLibrary = ReturnType<typeof openLibrary>;

let loaded: CLibrary | undefined;

function openLibrary(name: string) {
  const { symbols } = dlopen(name, {
    ioctl: { args: [FFIType.i32, FFIType.u64, FFIType.ptr], returns: FFIType.i32 },
    write: { args: [FFIType.i32, FFIType.ptr, FFIType.u64], returns: FFIType.i64_fast },
  });
  return symbols;
}

function loadLibrary(): CLibrary {
  for (const name of C_LIBRARIES) {
    try {
      return openLibrary(name);
    } catch {
      // It may be another one.
    }
  }
  throw new Error("no C library was found to open terminals with");
}

function control(fd: number, request: number, argument: Int32Array | Uint16Array): void {
  loaded ??= loadLibrary();
  if (loaded.ioctl(fd, request, ptr(argument)) !== 0)
    throw new Error("a pseudo-terminal can't be controlled");
}

/**
 * Our side of a pseudo-terminal; the other is `openTerminal`'s, for a child. Bun has terminals of its own, but
 * reads them whether one can take it or not: stopping their output instead (tcflow, XOFF) makes the kernel drop
 * line ends, since n_tty does not look whether both bytes of one were taken.
 */
export class Pseudoterminal {
  readonly #fd: number;
  readonly #output;
  #isClosed = false;

  /** @throws when the system has none left */
  constructor(size: TerminalSize) {
    const { O_RDWR, O_NOCTTY, O_NONBLOCK } = constants;
    this.#fd = openSync("/dev/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    this.#output = Bun.file(this.#fd).stream().getReader();
    try {
      control(this.#fd, TIOCSPTLCK, new Int32Array([0]));
      this.resize(size);
    } catch (error) {
      void this.close();
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
   * Gives what is printed to `take`, valid until what that returns has resolved. Nothing is read before, but for some
   * 16 KiB that Bun keeps ready: what is not taken holds its program up. Resolves when nobody has the other side any
   * more, or it is closed.
   */
  async read(take: (bytes: Uint8Array) => Promise<void> | undefined): Promise<void> {
    for (;;) {
      let printed: Uint8Array<ArrayBuffer> | undefined;
      try {
        printed = (await this.#output.read()).value;
      } catch {
        // Nobody has the other side any more.
      }
      if (!printed) return;
      const taken = take(printed);
      if (taken) await taken;
      giveBack(printed);
    }
  }

  /** How many of `bytes` were taken; none while the input queue is full, or once nobody has the other side. */
  write(bytes: Uint8Array): number {
    if (this.#isClosed || !loaded) return 0;
    // Between a key and its echo, each microsecond counts: Bun's own takes more of them, and throws where it may block.
    return Math.max(0, Number(loaded.write(this.#fd, bytes, bytes.byteLength)));
  }

  resize({ cols, rows }: TerminalSize): void {
    if (!this.#isClosed) control(this.#fd, TIOCSWINSZ, new Uint16Array([rows, cols, 0, 0]));
  }

  /** Hangs up: the programs that still have the other side get SIGHUP. */
  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    // What is being read is given up; it has failed already where nobody has the other side.
    await this.#output.cancel().catch(() => {});
    closeSync(this.#fd);
  }
}
