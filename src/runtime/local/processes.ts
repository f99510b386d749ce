import { readdir, readFile } from "node:fs/promises";

/* Processes of this host as /proc shows them (proc(5)). */

/** Of utime and stime: USER_HZ is 100 on every platform that Bun runs on. */
const TICK_MS = 10;
const PAGE_BYTES = 4096;
/** Of the flags in linux/sched.h. */
const PF_EXITING = 4;
/** Files open at a time while scanning. */
const BATCH = 64;

export interface Process {
  pid: number;
  /** In ticks since the host started: it tells a process from a later one with its pid. */
  startTicks: number;
  /** Of the program, at most 15 bytes. */
  name: string;
  parent: number;
  group: number;
  session: number;
  /** Device number of its controlling terminal; 0 without one, also once that was hung up. */
  terminal: number;
  /** The process group that its terminal's input goes to; -1 without a terminal. */
  foreground: number;
  /**
   * Its program runs no more and no signal changes anything: it waits to be reaped, or as the first of a
   * namespace for the others there to be, by a parent that may take its time.
   */
  exiting: boolean;
  /** Of the process and of the children that it has waited for. */
  cpuMs: number;
  residentBytes: number;
}

/** @returns undefined for what is not the text of /proc/PID/stat */
export function parseStat(text: string): Process | undefined {
  // The name stands in parentheses and may itself hold any character.
  const nameEnd = text.lastIndexOf(")");
  const pid = Number.parseInt(text, 10);
  const fields = text.slice(nameEnd + 2).split(" ");
  if (nameEnd < 0 || fields.length < 22 || !Number.isInteger(pid)) return undefined;
  const at = (index: number) => Number(fields[index]);
  return {
    pid,
    name: text.slice(text.indexOf("(") + 1, nameEnd),
    parent: at(1),
    group: at(2),
    session: at(3),
    terminal: at(4),
    foreground: at(5),
    // The flags are those of its first thread; others may run on without it.
    exiting: (at(6) & PF_EXITING) !== 0 && at(17) <= 1,
    startTicks: at(19),
    cpuMs: (at(11) + at(12) + at(13) + at(14)) * TICK_MS,
    residentBytes: at(21) * PAGE_BYTES,
  };
}

export async function readProcess(pid: number): Promise<Process | undefined> {
  return parseStat((await readProc(`/proc/${pid}/stat`)) ?? "");
}

let scanning: Promise<Process[]> | undefined;

/** Every process of the host. Callers that ask before a scan has begun share it. */
export function scanProcesses(): Promise<Process[]> {
  scanning ??= Promise.resolve().then(() => {
    scanning = undefined;
    return scan();
  });
  return scanning;
}

async function scan(): Promise<Process[]> {
  const pids = (await readdir("/proc")).filter((name) => /^\d+$/.test(name));
  const found: Process[] = [];
  for (let at = 0; at < pids.length; at += BATCH) {
    const texts = await Promise.all(pids.slice(at, at + BATCH).map((pid) => readProc(`/proc/${pid}/stat`)));
    for (const text of texts) {
      const process = text === undefined ? undefined : parseStat(text);
      if (process) found.push(process);
    }
  }
  return found;
}

/** Of `all`, those in `roots`, all that descends from them, and what shares a session that one of them leads. */
export function familyOf(all: readonly Process[], roots: ReadonlySet<number>): Process[] {
  const members = new Set(all.filter(({ pid }) => roots.has(pid)).map(({ pid }) => pid));
  // A leader that is gone still names its session.
  const sessions = new Set(roots);
  for (let before = -1; before !== members.size; ) {
    before = members.size;
    for (const { pid, parent, session } of all) {
      // A session whose leader is no member is someone else's: the server's own, for one.
      if (members.has(session)) sessions.add(session);
      if (members.has(parent) || sessions.has(session)) members.add(pid);
    }
  }
  return all.filter(({ pid }) => members.has(pid));
}

/** False when it is gone already. */
export function signal(pid: number, name: NodeJS.Signals): boolean {
  if (pid <= 1) return false;
  try {
    process.kill(pid, name);
    return true;
  } catch {
    return false;
  }
}

/**
 * Ends what `select` finds, again and again until it finds nothing: TERM once, HUP each time (interactive
 * shells ignore TERM, and one that is just starting may miss a HUP), CONT for what is stopped, and KILL
 * after `graceMs`.
 *
 * @returns how many could not be ended in time
 */
export async function endProcesses(
  select: () => Promise<Process[]>,
  { graceMs, limitMs = 20_000 }: { graceMs: number; limitMs?: number },
): Promise<number> {
  const began = performance.now();
  const asked = new Set<number>();
  let sawNone = false;
  for (let waitMs = 5; ; waitMs = Math.min(waitMs * 2, 100)) {
    const left = (await select()).filter(({ exiting }) => !exiting);
    const passedMs = performance.now() - began;
    // A look is no snapshot: who lost its parent meanwhile may be missed by one, not by the next.
    if ((left.length === 0 && sawNone) || passedMs >= limitMs) return left.length;
    sawNone = left.length === 0;
    for (const { pid } of left) {
      if (passedMs >= graceMs) signal(pid, "SIGKILL");
      else {
        if (!asked.has(pid)) signal(pid, "SIGTERM");
        asked.add(pid);
        signal(pid, "SIGHUP");
        signal(pid, "SIGCONT");
      }
    }
    await Bun.sleep(waitMs);
  }
}

/** Undefined when the process is gone or not ours to read. */
async function readProc(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, "latin1");
  } catch {
    return undefined;
  }
}
