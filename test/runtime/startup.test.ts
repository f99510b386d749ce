import { afterAll, beforeEach, describe, expect, test } from "bun:test";
import {
  closeSync,
  constants,
  existsSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createLineReader } from "../../src/runtime/lines.ts";
import {
  commandSummary,
  failureMessage,
  type Mark,
  parseMark,
  RESERVED_PREFIX,
  STARTUP_FAILED_EXIT_CODE,
  shellQuote,
  startupScript,
  withoutSeparator,
} from "../../src/runtime/startup.ts";
import { until } from "../until.ts";

const NONCE = "a1b2c3";
const root = mkdtempSync(join(tmpdir(), "devpocket-startup-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));

let workspace = "";
beforeEach(() => {
  workspace = mkdtempSync(join(root, "it's a workspace-"));
});

const ready = () => join(workspace, "..", "ready");
const failure = () => join(workspace, "failure");

const SHELLS = [["dash"], ["busybox", "sh"], ["bash"], ["bash", "--posix"]].filter(([shell]) =>
  Bun.which(shell ?? ""),
);

function scriptOf(commands: string[]): string {
  return startupScript({
    commands,
    nonce: NONCE,
    workspace,
    readyFile: ready(),
    failureFile: failure(),
    retryPauseSeconds: 0,
  });
}

interface StartOptions {
  wrapper?: string[];
  /** Beside those of this process. */
  variables?: Record<string, string>;
}

function start(
  [shell = "", ...args]: string[],
  commands: string[],
  { wrapper = [], variables }: StartOptions = {},
) {
  const file = join(workspace, "startup.sh");
  writeFileSync(file, scriptOf(commands));
  const lines: string[] = [];
  const marks: Mark[] = [];
  const reader = createLineReader((line) => {
    const mark = parseMark(line, NONCE);
    if (mark) marks.push(mark);
    else lines.push(withoutSeparator(line));
  });
  const child = Bun.spawn([...wrapper, Bun.which(shell) ?? shell, ...args, file], {
    env: { ...process.env, ...variables },
    stdout: "pipe",
    stderr: "inherit",
  });
  const read = (async () => {
    for await (const chunk of child.stdout) reader.push(chunk);
    reader.end();
  })();
  return { child, lines, marks, done: () => marks.some((mark) => mark.kind === "done"), read };
}

describe.each(SHELLS)("the startup script in %s %s", (...words) => {
  const shell = words.filter((word): word is string => typeof word === "string");

  test("runs the commands in order in the workspace, then stays until TERM", async () => {
    const run = start(shell, ["echo one; pwd > where", 'echo two\necho "$0 it\'s"', "cat; echo three"]);
    await until(run.done);
    expect(run.marks).toEqual([
      { kind: "step", step: 1, steps: 3, command: "echo one; pwd > where" },
      { kind: "step", step: 2, steps: 3, command: 'echo two echo "$0 it\'s"' },
      { kind: "step", step: 3, steps: 3, command: "cat; echo three" },
      { kind: "done", steps: 3 },
    ]);
    expect(run.lines).toEqual([
      "==> [1/3] echo one; pwd > where",
      "one",
      "==> [1/3] exit code 0",
      '==> [2/3] echo two echo "$0 it\'s"',
      "two",
      "sh it's",
      "==> [2/3] exit code 0",
      "==> [3/3] cat; echo three",
      "three",
      "==> [3/3] exit code 0",
    ]);
    expect(readFileSync(join(workspace, "where"), "utf8").trim()).toBe(workspace);
    expect(existsSync(ready())).toBe(true);
    expect(run.child.exitCode).toBe(null);
    run.child.kill("SIGTERM");
    expect(await run.child.exited).toBe(0);
  });

  test("what it says of a command stands on lines of its own, also after output without a newline", async () => {
    const run = start(shell, ["printf noend", "printf end; [ -e flag ] || { touch flag; false; }"]);
    await until(run.done);
    run.child.kill("SIGTERM");
    await run.child.exited;
    const again = "printf end; [ -e flag ] || { touch flag; false; }";
    expect(run.lines).toEqual([
      "==> [1/2] printf noend",
      "noend",
      "==> [1/2] exit code 0",
      `==> [2/2] ${again}`,
      "end",
      "==> [2/2] exit code 1",
      "==> [2/2] attempt 2 of 3 follows",
      "end",
      "==> [2/2] exit code 0",
    ]);
  });

  test("tries a failing command twice more, then says which failed and how", async () => {
    const run = start(shell, ["true", "echo x >> tries; echo oops >&2; exit 7", "touch never"]);
    expect(await run.child.exited).toBe(STARTUP_FAILED_EXIT_CODE);
    await run.read;
    const command = "echo x >> tries; echo oops >&2; exit 7";
    expect(run.marks).toEqual([
      { kind: "step", step: 1, steps: 3, command: "true" },
      { kind: "step", step: 2, steps: 3, command },
      { kind: "retry", step: 2, steps: 3, attempt: 2, exitCode: 7 },
      { kind: "retry", step: 2, steps: 3, attempt: 3, exitCode: 7 },
      { kind: "failed", step: 2, steps: 3, exitCode: 7, command },
    ]);
    expect(readFileSync(join(workspace, "tries"), "utf8")).toBe("x\nx\nx\n");
    expect(readFileSync(failure(), "utf8")).toBe(failureMessage({ step: 2, steps: 3, exitCode: 7, command }));
    expect(existsSync(join(workspace, "never"))).toBe(false);
    expect(existsSync(ready())).toBe(false);
  });

  test("its standard output is the log at any time, for what writes to that of process 1", async () => {
    expect(Bun.spawnSync(["mkfifo", failure()]).exitCode).toBe(0);
    const full = openSync(failure(), constants.O_RDWR | constants.O_NONBLOCK);
    try {
      fill(full);
      const run = start(shell, ["exit 7"]);
      const output = outputOf(run.child.pid);
      await until(() => someoneWritesTo(failure()));
      expect(outputOf(run.child.pid)).toBe(output);
      run.child.kill("SIGKILL");
      await run.child.exited;
    } finally {
      closeSync(full);
    }
  });

  test("goes on with a command that works the second time", async () => {
    const run = start(shell, ["test -e flag || { touch flag; false; }"]);
    await until(run.done);
    expect(run.marks.map(({ kind }) => kind)).toEqual(["step", "retry", "done"]);
    run.child.kill("SIGTERM");
    await run.child.exited;
  });

  test("ends promptly on TERM while a command runs", async () => {
    const run = start(shell, ["exec sleep 4321"]);
    await until(() => run.marks.length === 1);
    run.child.kill("SIGTERM");
    expect(await run.child.exited).toBe(0);
    expect(run.done()).toBe(false);
  });

  test("takes a command that looks like an option, and no commands at all", async () => {
    const run = start(shell, ["-x; exit 3"]);
    expect(await run.child.exited).toBe(STARTUP_FAILED_EXIT_CODE);
    const none = start(shell, []);
    await until(none.done);
    none.child.kill("SIGTERM");
    await none.child.exited;
  });

  test("nothing of a command is seen by the shell that runs the script", async () => {
    const nasty = "true '$(touch escaped)' \"`touch \\$escaped`\" '\\''; : '\n' \\";
    const run = start(shell, [`printf '%s' ${shellQuote(nasty)} > kept`]);
    await until(run.done);
    run.child.kill("SIGTERM");
    await run.child.exited;
    expect(readFileSync(join(workspace, "kept"), "utf8")).toBe(nasty);
    expect(existsSync(join(workspace, "escaped"))).toBe(false);
  });

  test("the owner's variables reach the commands as they are, be they called like words of the script", async () => {
    const commands = ["env > first; [ -e flag ] || { touch flag; false; }", "env > second"];
    const words = new Set(scriptOf(commands).match(/\b[A-Za-z_]\w*/g));
    const names = [...words].filter((word) => word !== "PATH" && !word.startsWith(RESERVED_PREFIX));
    expect(names).toEqual(expect.arrayContaining(["step", "sleep", "failed"]));
    const variables = Object.fromEntries(names.map((name) => [name, `owner's ${name}`]));
    const run = start(shell, commands, { variables });
    await until(run.done);
    run.child.kill("SIGTERM");
    await run.child.exited;
    for (const file of ["first", "second"]) {
      const seen = readFileSync(join(workspace, file), "utf8").split("\n");
      expect(seen).toEqual(expect.arrayContaining(names.map((name) => `${name}=owner's ${name}`)));
      expect(seen.filter((line) => line.startsWith(RESERVED_PREFIX))).toEqual([]);
    }
  });

  test.each(["$PATH:/workspace/bin", ""])("waits with the PATH %p, which the commands see", async (PATH) => {
    writeFileSync(ready(), "left over");
    const commands = [`printf '%s' "$PATH" > path; [ -e flag ] || { : > flag; false; }`];
    const run = start(shell, commands, { variables: { PATH } });
    const isWaiting = () => childrenOf(run.child.pid).some(({ name }) => name === "sleep");
    await until(() => run.done() && isWaiting()).finally(() => run.child.kill("SIGTERM"));
    expect(await run.child.exited).toBe(0);
    expect(run.marks.map(({ kind }) => kind)).toEqual(["step", "retry", "done"]);
    expect(readFileSync(join(workspace, "path"), "utf8")).toBe(PATH);
    expect(readFileSync(ready(), "utf8")).toBe("");
  });

  test("as pid 1 it reaps what is left to it and ends every process on TERM", async () => {
    if (process.getuid?.() !== 0) return;
    const namespace = ["unshare", "--pid", "--mount-proc", "--fork", "--kill-child"];
    const job =
      "for i in 1 2 3; do (sleep 0.01 &) ; done; (trap '' TERM; while :; do sleep 0.1; done) & true";
    const run = start(shell, [job], { wrapper: namespace });
    await until(run.done);
    const init = Number(readFileSync(`/proc/${run.child.pid}/task/${run.child.pid}/children`, "utf8"));
    await until(() => childrenOf(init).every(({ state }) => state !== "Z"), { message: "a zombie stays" });
    const began = performance.now();
    process.kill(init, "SIGTERM");
    await run.child.exited;
    expect(performance.now() - began).toBeLessThan(8000);
    expect(existsSync(`/proc/${init}`)).toBe(false);
  });
});

/** Writes to a FIFO until no more fits into it. */
function fill(fifo: number): void {
  for (const length of [4096, 1]) {
    try {
      while (writeSync(fifo, Buffer.alloc(length)) > 0);
    } catch {
      // EAGAIN
    }
  }
}

function outputOf(pid: number | string): string | null {
  try {
    return readlinkSync(`/proc/${pid}/fd/1`);
  } catch {
    return null;
  }
}

function someoneWritesTo(file: string): boolean {
  return readdirSync("/proc").some((pid) => /^\d+$/.test(pid) && outputOf(pid) === file);
}

/** What the direct children of `pid` are called, and their states (R, S, Z …). */
function childrenOf(pid: number): { name: string; state: string }[] {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8")
    .trim()
    .split(" ")
    .filter(Boolean);
  return children.map((child) => {
    try {
      const [, name = "", state = ""] =
        /\((.*)\) (.)/.exec(readFileSync(`/proc/${child}/stat`, "utf8")) ?? [];
      return { name, state };
    } catch {
      return { name: "", state: "" };
    }
  });
}

test("a command can't forge a mark without the nonce", () => {
  for (const line of [
    "\x1edevpocket other done 0",
    "devpocket a1b2c3 done 0",
    "\x1edevpocket a1b2c3 done",
    "\x1edevpocket a1b2c3 done 0 ",
    "x\x1edevpocket a1b2c3 done 0",
    "\x1edevpocket  done 0",
  ]) {
    expect(parseMark(line, NONCE)).toBe(null);
  }
  expect(parseMark("\x1edevpocket a1b2c3 done 0", NONCE)).toEqual({ kind: "done", steps: 0 });
});

test("a command's summary is one line of bounded length", () => {
  expect(commandSummary("  a \\\n\t b\x1b[31m\r\n")).toBe("a \\ b [31m");
  expect(Array.from(commandSummary("👋".repeat(1000))).length).toBe(200);
});
