import { constants } from "node:os";
import { PTY_INPUT_HIGH_WATER_BYTES, type Pty, type TerminalOptions } from "../runtime.ts";
import { outputHold } from "./hold.ts";
import { jobsOf } from "./jobs.ts";
import { endProcesses, familyOf, scanProcesses } from "./processes.ts";

/** termios(3): c_iflag. */
const IXON = 0o2000;
const XON = "\x11";
const XOFF = "\x13";

/** Ctrl-C starts a terminal that XOFF holds again (n_tty does): so much later it is held again. */
const HOLD_AGAIN_BYTES = 64 * 1024;
/** Bun's reader does not come back to the event loop while there is something: it is made to, so often. */
const TURN_BYTES = 96 * 1024;
/** While someone types in another terminal, a flood gets its next stretch only after this … */
const TYPING_TURN_MS = 3;
/** … and someone who typed so lately still does. */
const TYPING_MS = 500;
/** How long the last output may take to arrive once the shell is gone. */
const LAST_OUTPUT_MS = 500;
const KILL_GRACE_MS = 300;
/** How long a leader may take to reap what has ended. */
const REAPING_MS = 50;

/** As a shell has it: 128+n for signal n. The real-time signals have no names. */
function exitCodeOf(exitCode: number | null, signal: NodeJS.Signals | number | null): number | null {
  if (exitCode !== null || signal === null) return exitCode;
  return 128 + (typeof signal === "number" ? signal : constants.signals[signal]);
}

/** Where anything was typed last: all terminals share the event loop, and what it has time for. */
let lastTyped = { pid: 0, at: Number.NEGATIVE_INFINITY };

export interface LocalPty extends Pty {
  readonly pid: number;
  /** Resolves after `onExit`. */
  readonly ended: Promise<void>;
}

/**
 * Starts `command` as the leader of a session of its own on a new pseudo-terminal.
 *
 * @throws what `Bun.spawn` throws when the program can't be started
 */
export function spawnPty(
  command: string[],
  { cwd, env }: { cwd: string; env: Record<string, string> },
  options: TerminalOptions,
): LocalPty {
  const { size, onData, onExit, onDrain } = options;
  let over = false;
  let paused = false;
  /** The program had flow control by XON and XOFF switched off. */
  let lentIxon = false;
  let sinceHoldBytes = 0;
  let waitingBytes = 0;
  let turnBytes = 0;
  let isBreathing = false;
  const closed = Promise.withResolvers<void>();
  const ended = Promise.withResolvers<void>();

  const child = Bun.spawn(command, {
    cwd,
    env,
    terminal: {
      cols: size.cols,
      rows: size.rows,
      data(_terminal, bytes) {
        if (paused) sinceHoldBytes += bytes.byteLength;
        if (sinceHoldBytes > HOLD_AGAIN_BYTES) hold();
        if (!over) onData(bytes);
        takeTurns(bytes.byteLength);
      },
      exit: () => closed.resolve(),
      drain() {
        const wasHigh = waitingBytes > PTY_INPUT_HIGH_WATER_BYTES;
        waitingBytes = 0;
        if (wasHigh && !over) onDrain();
      },
    },
  });
  const terminal = child.terminal;
  if (!terminal) throw new Error("the process has no terminal");

  const output = outputHold(child.pid);

  /** Lets everything else run between two stretches of a flood. */
  function takeTurns(bytes: number): void {
    if (turnBytes === 0) {
      if (isTypedElsewhere()) setTimeout(endTurn, TYPING_TURN_MS);
      else setImmediate(endTurn);
    }
    turnBytes += bytes;
    if (turnBytes < TURN_BYTES || isBreathing || paused) return;
    isBreathing = true;
    output?.stop();
  }

  function isTypedElsewhere(): boolean {
    return lastTyped.pid !== child.pid && performance.now() - lastTyped.at < TYPING_MS;
  }

  function endTurn(): void {
    turnBytes = 0;
    if (!isBreathing) return;
    isBreathing = false;
    if (!paused) output?.start();
  }

  function hold(): void {
    sinceHoldBytes = 0;
    if (!terminal || terminal.closed) return;
    if (output) {
      output.stop();
      return;
    }
    const flags = terminal.inputFlags;
    if ((flags & IXON) === 0) {
      lentIxon = true;
      terminal.inputFlags = flags | IXON;
    }
    terminal.write(XOFF);
  }

  function release(): void {
    if (!terminal || terminal.closed) return;
    if (output) {
      output.start();
      return;
    }
    // Switching IXON off starts a held terminal; an XON written before might reach the program as input.
    if (lentIxon) terminal.inputFlags = terminal.inputFlags & ~IXON;
    else terminal.write(XON);
    lentIxon = false;
  }

  void child.exited.then(async () => {
    // Its output would stay where it is, and the terminal open as long as we hold it.
    output?.start();
    output?.close();
    if (paused) release();
    const limit = Promise.withResolvers<void>();
    const timer = setTimeout(limit.resolve, LAST_OUTPUT_MS);
    await Promise.race([closed.promise, limit.promise]);
    clearTimeout(timer);
    over = true;
    terminal.close();
    onExit(exitCodeOf(child.exitCode, child.signalCode));
    ended.resolve();
  });

  return {
    pid: child.pid,
    ended: ended.promise,
    write(bytes) {
      if (over || terminal.closed || bytes.byteLength === 0) return true;
      lastTyped = { pid: child.pid, at: performance.now() };
      waitingBytes += bytes.byteLength;
      terminal.write(new Uint8Array(bytes));
      return waitingBytes <= PTY_INPUT_HIGH_WATER_BYTES;
    },
    resize({ cols, rows }) {
      if (!over && !terminal.closed) terminal.resize(cols, rows);
    },
    pause() {
      if (paused || over) return;
      paused = true;
      hold();
    },
    resume() {
      if (!paused || over) return;
      paused = false;
      sinceHoldBytes = 0;
      release();
    },
    kill() {
      if (over) return;
      void endSession(child.pid);
    },
    async jobs() {
      return over ? null : jobsOf(child.pid);
    },
  };
}

/**
 * Ends every process of the terminal session that `leader` leads, and what these have started. The leader
 * comes last: a sandbox's is nsenter, without which the host's pid 1 would have to reap the shell.
 */
async function endSession(leader: number): Promise<void> {
  const roots = new Set([leader]);
  let grantedMs = 0;
  await endProcesses(
    async () => {
      for (;;) {
        const family = familyOf(await scanProcesses(), roots);
        const others = family.filter(({ pid }) => pid !== leader);
        const living = others.filter(({ exiting }) => !exiting);
        if (living.length > 0) return living;
        if (others.length === 0 || grantedMs >= REAPING_MS) return family;
        grantedMs += 10;
        await Bun.sleep(10);
      }
    },
    { graceMs: KILL_GRACE_MS },
  );
}
