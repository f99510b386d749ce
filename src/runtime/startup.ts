/*
 * What runs first in every environment, on both runtimes: a script for plain `sh` (dash, busybox ash, bash)
 * that runs the template's commands and then stays up. It tells how far it is by marks: lines on standard
 * output that carry a nonce of this run, so that a command's output can't be taken for one.
 */

/** What an environment's processes see unless its variables say otherwise. */
export const DEFAULT_VARIABLES = {
  TERM: "xterm-256color",
  LANG: "C.UTF-8",
  HOME: "/workspace",
} as const;

/** Where systems have their programs: what our own scripts call is found there, whatever the owner's PATH is. */
export const SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/** For scripts of ours that run with the owner's variables. */
export const EXTEND_PATH = `PATH=$PATH:${SYSTEM_PATH}`;

/** The script's exit code when a command failed for good; the reason is in the mark and the failure file. */
export const STARTUP_FAILED_EXIT_CODE = 93;

/**
 * How the script's own variables begin, and none of the owner's may: what a shell has inherited stays exported
 * when it is set, and the commands would see the script's value.
 */
export const RESERVED_PREFIX = "__dp_";

const ATTEMPTS = 3;
const RECORD_SEPARATOR = "\x1e";
const SUMMARY_CHARS = 200;

export interface StartupOptions {
  commands: readonly string[];
  /** Letters and digits, new for every run. */
  nonce: string;
  /** Where the commands run. */
  workspace: string;
  /** Made when all commands are done, for a readiness probe; its folder must be there and not be kept. */
  readyFile: string | null;
  /** Gets `failureMessage` when a command has failed for good. Not being able to write it is no fault. */
  failureFile: string | null;
  /** Between two attempts of one command. */
  retryPauseSeconds?: number;
  /** How long processes may take to end on TERM before they are killed. */
  stopGraceSeconds?: number;
}

/** How far a run is, read from its output. Steps count from 1. */
export type Mark =
  | { kind: "step"; step: number; steps: number; command: string }
  | { kind: "retry"; step: number; steps: number; attempt: number; exitCode: number }
  | { kind: "failed"; step: number; steps: number; exitCode: number; command: string }
  | { kind: "done"; steps: number };

/** A command as one line that can be shown: its control characters gone, its length bounded. */
export function commandSummary(command: string): string {
  const line = command.replace(/[\p{Cc}\p{Cf}\s]+/gu, " ").trim();
  const characters = Array.from(line.slice(0, (SUMMARY_CHARS + 1) * 2));
  return characters.length <= SUMMARY_CHARS ? line : `${characters.slice(0, SUMMARY_CHARS - 1).join("")}…`;
}

/** Quotes for `sh` so that the shell sees exactly `text`. */
export function shellQuote(text: string): string {
  return `'${text.replaceAll("\0", "").replaceAll("'", "'\\''")}'`;
}

/** What the owner is told of a command that failed for good; also what the script writes to the failure file. */
export function failureMessage(failed: {
  step: number;
  steps: number;
  exitCode: number;
  command: string;
}): string {
  return `Startup command ${failed.step} of ${failed.steps} failed with exit code ${failed.exitCode}: ${failed.command}`;
}

/**
 * The startup script. It runs each command in a `sh` of its own with nothing on standard input, tries a
 * failing one twice more, and exits with STARTUP_FAILED_EXIT_CODE when that did not help. When all are done
 * it stays, reaping what is left to it as pid 1, until TERM: then it ends every process of its pid namespace
 * and exits with 0.
 */
export function startupScript(options: StartupOptions): string {
  const { commands, nonce, workspace, readyFile, failureFile } = options;
  if (!/^[A-Za-z0-9]+$/.test(nonce)) throw new TypeError("the nonce must be letters and digits");
  const steps = commands.map((command, index) =>
    ["step", index + 1, shellQuote(commandSummary(command)), shellQuote(command)].join(" "),
  );
  return `${[
    `__dp_nonce=${nonce}`,
    `__dp_workspace=${shellQuote(workspace)}`,
    `__dp_ready=${shellQuote(readyFile ?? "")}`,
    `__dp_failure=${shellQuote(failureFile ?? "")}`,
    `__dp_steps=${commands.length}`,
    `__dp_attempts=${ATTEMPTS}`,
    `__dp_pause=${options.retryPauseSeconds ?? 2}`,
    `__dp_grace=${options.stopGraceSeconds ?? 3}`,
    FUNCTIONS,
    ...steps,
    FINALE,
  ].join("\n")}\n`;
}

/*
 * Commands run in the background and are waited for, since a shell runs no trap while a foreground command
 * runs: `$!` is the one to end, unless it is over. `kill -1` is only ever done by process 1 or 2, the first of a
 * pid namespace of its own (on a host these are init and the kernel). Interactive shells ignore TERM, and one
 * that is just starting may miss a HUP, hence HUP again and again; CONT for what is stopped.
 *
 * A shell that has just been forked and is yet to become `sleep` would take a TERM for its parent's, and forget it:
 * it gets KILL.
 *
 * What is said after a command begins as marks do: the command's output may not have ended its last line.
 *
 * Files are written by a process of their own (`put`): the script's standard output is where programs write that
 * log to /proc/1/fd/1, and must not be another file even for a moment.
 */
const FUNCTIONS = String.raw`__dp_path=$PATH
${EXTEND_PATH}
__dp_over=
__dp_end=TERM
put() { (printf '%s' "$2" >"$1"); }
mark() { printf '\036devpocket %s %s\n' "$__dp_nonce" "$*"; }
finish() {
  trap '' TERM INT HUP
  if [ "$$" -le 2 ]; then
    for __dp_signal in TERM HUP CONT; do kill -$__dp_signal -1 2>/dev/null; done
    __dp_i=0
    __dp_nap=0.01
    while [ "$__dp_i" -lt "$((__dp_grace * 10 + 5))" ] && kill -0 -1 2>/dev/null; do
      __dp_i=$((__dp_i + 1))
      kill -HUP -1 2>/dev/null
      sleep "$__dp_nap" 2>/dev/null || { sleep 1; __dp_i=$((__dp_i + 9)); }
      [ "$__dp_i" -lt 5 ] || __dp_nap=0.1
    done
  elif [ "$!" != "$__dp_over" ]; then
    kill -$__dp_end "$!" 2>/dev/null
  fi
  exit 0
}
trap finish TERM INT HUP
await() {
  wait "$!"
  __dp_code=$?
  __dp_over=$!
}
step() {
  __dp_attempt=1
  mark step "$1" "$__dp_steps" "$2"
  printf '==> [%s/%s] %s\n' "$1" "$__dp_steps" "$2"
  while :; do
    (cd "$__dp_workspace" && PATH=$__dp_path && exec /bin/sh -c -- "$3" sh) </dev/null &
    await
    printf '\036==> [%s/%s] exit code %s\n' "$1" "$__dp_steps" "$__dp_code"
    [ "$__dp_code" -ne 0 ] || return 0
    [ "$__dp_attempt" -lt "$__dp_attempts" ] || break
    __dp_attempt=$((__dp_attempt + 1))
    mark retry "$1" "$__dp_steps" "$__dp_attempt" "$__dp_code"
    printf '==> [%s/%s] attempt %s of %s follows\n' "$1" "$__dp_steps" "$__dp_attempt" "$__dp_attempts"
    sleep "$__dp_pause" &
    await
  done
  mark failed "$1" "$__dp_steps" "$__dp_code" "$2"
  [ -z "$__dp_failure" ] ||
    (put "$__dp_failure" "Startup command $1 of $__dp_steps failed with exit code $__dp_code: $2") 2>/dev/null
  exit ${STARTUP_FAILED_EXIT_CODE}
}
[ -z "$__dp_ready" ] || rm -f "$__dp_ready"`;

const FINALE = `[ -z "$__dp_ready" ] || put "$__dp_ready" '' || exit
mark done "$__dp_steps"
__dp_end=KILL
while :; do
  sleep 86400 &
  await
done`;

const MARK =
  /^devpocket (\w+) (?:step (\d+) (\d+) (.*)|retry (\d+) (\d+) (\d+) (\d+)|failed (\d+) (\d+) (\d+) (.*)|done (\d+))$/u;

/** A line of a LineReader that is no mark, as it goes into the log. */
export function withoutSeparator(line: string): string {
  return line.startsWith(RECORD_SEPARATOR) ? line.slice(1) : line;
}

/** The mark that `line` (of a LineReader) is; null for any other line, those of another run among them. */
export function parseMark(line: string, nonce: string): Mark | null {
  if (!line.startsWith(RECORD_SEPARATOR)) return null;
  const match = MARK.exec(line.slice(1));
  if (match?.[1] !== nonce) return null;
  const at = (group: number) => Number(match[group]);
  if (match[2] !== undefined) return { kind: "step", step: at(2), steps: at(3), command: match[4] ?? "" };
  if (match[5] !== undefined) {
    return { kind: "retry", step: at(5), steps: at(6), attempt: at(7), exitCode: at(8) };
  }
  if (match[9] !== undefined) {
    return { kind: "failed", step: at(9), steps: at(10), exitCode: at(11), command: match[12] ?? "" };
  }
  return { kind: "done", steps: at(13) };
}
