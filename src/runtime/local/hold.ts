import { dlopen, FFIType } from "bun:ffi";
import { closeSync, constants, openSync } from "node:fs";

/** tcflow(3) on Linux. */
const TCOOFF = 0;
const TCOON = 1;

/** Stops and starts the output of a terminal. */
export interface OutputHold {
  stop(): void;
  start(): void;
  /** Output can't be held any more; a stopped one has to be started before. */
  close(): void;
}

type TcFlow = (fd: number, action: number) => number;

/** Undefined: no C library by this name. */
let tcflow: TcFlow | null | undefined;

function loadTcFlow(): TcFlow | null {
  try {
    const { symbols } = dlopen("libc.so.6", {
      tcflow: { args: [FFIType.i32, FFIType.i32], returns: FFIType.i32 },
    });
    return symbols.tcflow;
  } catch {
    return null;
  }
}

/**
 * Holds the output of the terminal that process `pid` has as its standard input, at once: XOFF typed into
 * a terminal acts only after Bun's reader has come to rest, and that goes on reading as long as there is
 * something, without coming back to the event loop. Null where it can't be had.
 */
export function outputHold(pid: number): OutputHold | null {
  if (tcflow === undefined) tcflow = loadTcFlow();
  const flow = tcflow;
  if (flow === null) return null;
  let fd: number | null;
  try {
    fd = openSync(`/proc/${pid}/fd/0`, constants.O_RDWR | constants.O_NOCTTY | constants.O_NONBLOCK);
  } catch {
    return null;
  }
  return {
    stop() {
      if (fd !== null) flow(fd, TCOOFF);
    },
    start() {
      if (fd !== null) flow(fd, TCOON);
    },
    close() {
      if (fd !== null) closeSync(fd);
      fd = null;
    },
  };
}
