import { PTY_INPUT_HIGH_WATER_BYTES, type Pty, type TerminalOptions } from "../../runtime.ts";
import { EXTEND_PATH } from "../../startup.ts";
import type { Connection } from "../api/connection.ts";
import { type ExecTarget, openExec, runCommand } from "../api/exec.ts";
import { TERM_VARIABLE, WORKSPACE } from "../manifests/manifests.ts";

const KILL_ATTEMPTS = 5;
const KILL_AGAIN_MS = 2_000;
/** The end of a shell is told this soon; where input waits that nobody has read, it never is. */
const END_TOLD_MS = 2_000;
/** 128 and SIGKILL. */
const KILLED_EXIT_CODE = 137;

const ANNOUNCED = "\x1b]devpocket;";
const ESC = 0x1b;
const BEL = 0x07;

// Sets no variables of its own: they could be the owner's.
const PREPARE = `cd ${WORKSPACE} 2>/dev/null
export SHELL="$(${EXTEND_PATH}; command -v bash || echo /bin/sh)"
export TERM="\${${TERM_VARIABLE}:-$TERM}"`;
const RUN_SHELL = `command -v bash >/dev/null && exec bash
exec "$SHELL"`;

/** Becomes the shell of a terminal that is there. */
export const BECOME_SHELL = ["/bin/sh", "-c", `${PREPARE}\n${RUN_SHELL}`];

/**
 * Sets the size before the shell begins (the exec's own resize may come after its first prompt), tells the
 * process id, which the shell keeps and which is that of its terminal session, and becomes the shell.
 */
const OPEN = `(${EXTEND_PATH}; stty cols "$1" rows "$2" 2>/dev/null)
${PREPARE}
printf '\\033]devpocket;%s\\007' "$$"
${RUN_SHELL}`;

/**
 * Ends every process of the terminal session $1, by /proc and the shell's own words alone: images without
 * ps or pkill are common. Field 6 of stat, the fourth after the name in brackets, is the session.
 */
const KILL = `${EXTEND_PATH}
all() {
  for stat in /proc/[0-9]*/stat; do
    { read -r line <"$stat"; } 2>/dev/null || continue
    pid=\${line%% *}
    set -- \${line##*) }
    [ "$4" = "$session" ] && kill -$signal "$pid" 2>/dev/null && found=1
  done
}
session=$1
for signal in HUP CONT TERM; do all; done
i=0
while [ $i -lt 10 ]; do
  signal=0 found=
  all
  [ -n "$found" ] || exit 0
  sleep 0.1 2>/dev/null || sleep 1
  i=$((i + 1))
done
signal=KILL
all
exit 0`;

/**
 * A shell in a container, over an exec with a terminal; it ends with its connection.
 *
 * @param signal when it aborts, the connection is not to be used any more
 */
export async function openTerminal(
  connection: Connection,
  target: ExecTarget,
  options: TerminalOptions,
  signal: AbortSignal,
): Promise<Pty> {
  let session: string | null = null;
  let exited = false;
  let isKilled = false;
  let refusing = false;
  const head = new Announcement();

  const abandon = () => stream.close();
  const finish = (code: number | null) => {
    exited = true;
    signal.removeEventListener("abort", abandon);
    const rest = head.flush();
    if (rest.length > 0) options.onData(rest);
    // The far side goes on after a lost connection, and nobody would ever use or end it again.
    if (code === null && session !== null && !isKilled) void killSession(connection, target, session);
    options.onExit(code ?? (isKilled ? KILLED_EXIT_CODE : null));
  };
  const endSession = async (id: string) => {
    isKilled = await killSession(connection, target, id);
    if (isKilled) await Bun.sleep(END_TOLD_MS);
    stream.close();
  };
  const stream = await openExec(
    connection,
    target,
    ["/bin/sh", "-c", OPEN, "sh", String(options.size.cols), String(options.size.rows)],
    { tty: true, stdin: true },
    {
      onOutput(bytes) {
        if (session !== null) return options.onData(bytes);
        const found = head.push(bytes);
        if (!found) return;
        session = found.session;
        if (found.rest.length > 0) options.onData(found.rest);
      },
      onEnd: finish,
      onTaken() {
        if (!refusing || exited || stream.pendingBytes() > PTY_INPUT_HIGH_WATER_BYTES / 2) return;
        refusing = false;
        options.onDrain();
      },
    },
  );
  stream.resize(options.size);
  signal.addEventListener("abort", abandon);
  if (signal.aborted) abandon();

  return {
    write(bytes) {
      if (exited) return true;
      stream.write(bytes);
      if (stream.pendingBytes() <= PTY_INPUT_HIGH_WATER_BYTES) return true;
      refusing = true;
      return false;
    },
    resize: (size) => stream.resize(size),
    pause: () => stream.pause(),
    resume: () => stream.resume(),
    kill() {
      if (exited) return;
      // A paused stream would not tell of the end.
      stream.resume();
      if (session === null) stream.close();
      else void endSession(session);
    },
  };
}

/** False: the environment could not be reached, or is gone with all of its processes. */
async function killSession(connection: Connection, target: ExecTarget, session: string): Promise<boolean> {
  for (let attempt = 1; attempt <= KILL_ATTEMPTS; attempt++) {
    try {
      await runCommand(connection, target, ["/bin/sh", "-c", KILL, "sh", session]);
      return true;
    } catch {
      await Bun.sleep(KILL_AGAIN_MS * attempt);
    }
  }
  return false;
}

/** Takes the line in which OPEN tells its process id out of the beginning of what a terminal prints. */
export class Announcement {
  #head = new Uint8Array();

  /** The session, once it has been told, and what follows it. */
  push(bytes: Uint8Array): { session: string; rest: Uint8Array } | null {
    this.#head = new Uint8Array(Buffer.concat([this.#head, bytes]));
    const from = this.#head.indexOf(ESC);
    const to = this.#head.indexOf(BEL, from);
    if (from < 0 || to < 0) return null;
    const text = Buffer.from(this.#head.subarray(from, to)).toString();
    if (!text.startsWith(ANNOUNCED)) return null;
    const session = text.slice(ANNOUNCED.length);
    const head = this.flush();
    return { session, rest: Buffer.concat([head.subarray(0, from), head.subarray(to + 1)]) };
  }

  /** What came when nothing was told: the words of a shell that could not begin. */
  flush(): Uint8Array {
    const head = this.#head;
    this.#head = new Uint8Array();
    return head;
  }
}
