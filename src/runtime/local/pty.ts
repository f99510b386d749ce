import { closeSync } from "node:fs";
import { constants } from "node:os";
import { ByteQueue } from "../../lib/byte-queue.ts";
import { PTY_INPUT_HIGH_WATER_BYTES, type Pty, type TerminalOptions } from "../runtime.ts";
import { jobsOf } from "./jobs.ts";
import { endProcesses, familyOf, scanProcesses } from "./processes.ts";
import { Pseudoterminal } from "./pseudoterminal.ts";

/** After so much of a flood everything else gets its turn: with the piece that ends it no more than a frame carries. */
const TURN_BYTES = 127 * 1024;
/** While someone types in another terminal, a flood gets its next stretch only after this … */
const TYPING_TURN_MS = 3;
/** … and someone who typed so lately still does. */
const TYPING_MS = 500;
/**
 * Nothing tells when a full input queue has room again, but that its program prints may be because it has read: it is
 * tried then, and after this, later ever more rarely.
 */
const INPUT_RETRY_MS = { first: 1, most: 20 };
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
  /** The shell has gone: what it printed last is read, whoever may be slow to take it. */
  let isLast = false;
  let isHungUp = false;
  /** Resolves when it may be read on. */
  let paused: PromiseWithResolvers<void> | null = null;
  let turnBytes = 0;
  const waiting = new ByteQueue();
  let retryMs = INPUT_RETRY_MS.first;
  let retryTimer: Timer | undefined;
  const closed = Promise.withResolvers<void>();
  const ended = Promise.withResolvers<void>();

  const terminal = new Pseudoterminal(size);
  const child = spawnOn(terminal, command, { cwd, env });

  /** The rest stays in the kernel until it may be given on, and the program waits for it to be taken. */
  function take(bytes: Uint8Array): Promise<void> | undefined {
    if (over) return undefined;
    onData(bytes);
    if (waiting.length > 0) writeOn();
    turnBytes += bytes.byteLength;
    return turnBytes >= TURN_BYTES ? endTurn() : paused?.promise;
  }

  /** Lets everything else run between two stretches of a flood. */
  async function endTurn(): Promise<void> {
    turnBytes = 0;
    const isTypedElsewhere = lastTyped.pid !== child.pid && performance.now() - lastTyped.at < TYPING_MS;
    await new Promise<void>((resolve) => {
      if (isTypedElsewhere) setTimeout(resolve, TYPING_TURN_MS);
      else setImmediate(resolve);
    });
    await paused?.promise;
  }

  function writeOn(): void {
    const wasHigh = isHigh();
    while (waiting.length > 0 && !over) {
      const bytes = waiting.peek();
      const taken = terminal.write(bytes);
      waiting.drop(taken);
      if (taken > 0) retryMs = INPUT_RETRY_MS.first;
      if (taken < bytes.byteLength) {
        retryLater();
        break;
      }
    }
    if (wasHigh && !isHigh() && !over) onDrain();
  }

  function isHigh(): boolean {
    return waiting.length > PTY_INPUT_HIGH_WATER_BYTES;
  }

  function retryLater(): void {
    retryTimer ??= setTimeout(() => {
      retryTimer = undefined;
      retryMs = Math.min(retryMs * 2, INPUT_RETRY_MS.most);
      writeOn();
    }, retryMs);
  }

  function resume(): void {
    paused?.resolve();
    paused = null;
  }

  void terminal.read(take).finally(() => {
    // Nobody has the other side: what waits for it is of no use any more.
    isHungUp = true;
    clearTimeout(retryTimer);
    const wasHigh = isHigh();
    waiting.clear();
    if (wasHigh && !over) onDrain();
    closed.resolve();
  });
  void child.exited.then(async () => {
    isLast = true;
    resume();
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
      if (over || isHungUp || bytes.byteLength === 0) return true;
      const taken = waiting.length > 0 ? 0 : terminal.write(bytes);
      if (taken < bytes.byteLength) {
        waiting.push(bytes.subarray(taken));
        retryLater();
      }
      lastTyped = { pid: child.pid, at: performance.now() };
      return !isHigh();
    },
    resize(size) {
      if (!over) terminal.resize(size);
    },
    pause() {
      if (!isLast) paused ??= Promise.withResolvers<void>();
    },
    resume,
    kill() {
      if (over) return;
      void endSession(child.pid);
    },
    async jobs() {
      return over ? null : jobsOf(child.pid);
    },
  };
}

/** As the leader of a session whose terminal it is: setsid(1) takes the place of what it starts. */
function spawnOn(
  terminal: Pseudoterminal,
  command: string[],
  { cwd, env }: { cwd: string; env: Record<string, string> },
): Bun.Subprocess {
  let fd: number | undefined;
  try {
    fd = terminal.openTerminal();
    return Bun.spawn(["setsid", "-c", ...command], { cwd, env, stdio: [fd, fd, fd] });
  } catch (error) {
    terminal.close();
    throw error;
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
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
