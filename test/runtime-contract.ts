import { afterAll, afterEach, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { newId } from "../src/lib/ids.ts";
import {
  type EnvironmentRef,
  type EnvironmentSpec,
  type LogLine,
  type Observed,
  PTY_INPUT_HIGH_WATER_BYTES,
  type Pty,
  type Runtime,
  RuntimeRejected,
  type TerminalSize,
} from "../src/runtime/runtime.ts";
import { until } from "./until.ts";

/** What a runtime under test is made of. */
export interface RuntimeUnderTest {
  /** A runtime that finds what earlier ones have left; those are closed before. */
  open(): Promise<Runtime>;
  /** Removes whatever the tests have left. */
  dispose(): Promise<void>;
}

export interface ContractOptions {
  /** Has `sh`; its startup commands are run. */
  image: string | null;
  /** How long anything may take to come about. */
  timeoutMs: number;
  /** Held against the memory that a paused flood may take. */
  floodLimitBytes?: number;
}

/** Every statement of src/runtime/runtime.ts, run against the real thing. */
export function runtimeContract(
  name: string,
  make: () => Promise<RuntimeUnderTest>,
  { image, timeoutMs, floodLimitBytes = 32 * 1024 * 1024 }: ContractOptions,
): void {
  describe(`${name} fulfils the runtime's contract`, () => {
    setDefaultTimeout(timeoutMs * 2);

    let subject: RuntimeUnderTest;
    let runtime: Runtime;
    let refs: EnvironmentRef[] = [];
    const userId = newId();

    beforeAll(async () => {
      subject = await make();
      runtime = await subject.open();
    });

    afterEach(async () => {
      await Promise.all(refs.map((ref) => runtime.remove(ref)));
      for (const ref of refs) await reach(ref, "absent");
      refs = [];
    });

    afterAll(async () => {
      await runtime.close();
      await subject.dispose();
    });

    function specOf(changes: Partial<EnvironmentSpec> = {}): EnvironmentSpec {
      const spec: EnvironmentSpec = {
        environmentId: newId(),
        userId,
        name: "contract",
        generation: 1,
        image,
        startupCommands: [],
        variables: {},
        resources: { cpuMillis: 100, memoryBytes: 64 * 2 ** 20, storageBytes: 64 * 2 ** 20 },
        port: 8000,
        capabilities: [],
        userQuota: null,
        ...changes,
      };
      refs.push(spec);
      return spec;
    }

    /** Waits for `phase`, of `generation` where one is given; fails at once when it has failed instead. */
    async function reach<P extends Observed["phase"]>(
      ref: EnvironmentRef,
      phase: P,
      generation?: number,
    ): Promise<Extract<Observed, { phase: P }>> {
      let last: Observed | undefined;
      return await until(
        async () => {
          last = await runtime.observe(ref);
          const isOf = generation === undefined || ("generation" in last && last.generation === generation);
          if (
            last.phase === "failed" &&
            phase !== "failed" &&
            phase !== "absent" &&
            phase !== "stopped" &&
            isOf
          ) {
            throw new Error(`failed: ${last.problem.message}`);
          }
          return isOf && hasPhase(last, phase) ? last : undefined;
        },
        { timeoutMs, intervalMs: 20, message: () => `not ${phase}, but ${JSON.stringify(last)}` },
      );
    }

    async function running(changes: Partial<EnvironmentSpec> = {}): Promise<EnvironmentSpec> {
      const spec = specOf(changes);
      await runtime.ensure(spec);
      await reach(spec, "running", spec.generation);
      return spec;
    }

    async function open(ref: EnvironmentRef, size: TerminalSize = { cols: 80, rows: 24 }) {
      return await TestTerminal.open(runtime, ref, size, timeoutMs);
    }

    /** Runs `command` in a shell of its own and gives what it prints. */
    async function run(ref: EnvironmentRef, command: string): Promise<string> {
      const terminal = await open(ref);
      try {
        return await terminal.run(command);
      } finally {
        terminal.pty.kill();
        await terminal.exited;
      }
    }

    /** The log from `after` until a line for which `isLast`. */
    async function readLog(
      ref: EnvironmentRef,
      after: string | null,
      isLast: (line: LogLine) => boolean,
    ): Promise<LogLine[]> {
      const lines: LogLine[] = [];
      const stop = new AbortController();
      const timer = setTimeout(() => stop.abort(), timeoutMs);
      for await (const line of runtime.logs(ref, { after, signal: stop.signal })) {
        lines.push(line);
        if (isLast(line)) break;
      }
      clearTimeout(timer);
      return lines;
    }

    test("what was never made is absent, and can be stopped and removed all the same", async () => {
      const ref = { environmentId: newId(), userId };
      expect(await runtime.observe(ref)).toEqual({ phase: "absent" });
      await runtime.stop(ref);
      await runtime.remove(ref);
      expect(await runtime.observe(ref)).toEqual({ phase: "absent" });
      expect(await runtime.usage(ref)).toBe(null);
      await expect(open(ref)).rejects.toBeInstanceOf(RuntimeRejected);
      expect(
        (await Array.fromAsync(runtime.logs(ref, { after: null, signal: AbortSignal.timeout(timeoutMs) })))
          .length,
      ).toBe(0);
    });

    test("runs the startup commands step by step, with what the owner has set", async () => {
      const wait = "while [ ! -e go ]; do sleep 0.1; done";
      const spec = specOf({
        startupCommands: ["rm -f go", wait, "echo value=$GREETING", "echo term=$TERM lang=$LANG home=$HOME"],
        variables: { GREETING: 'it\'s "$HOME" `id`', LANG: "C" },
      });
      await runtime.ensure(spec);
      const at = await until(
        async () => {
          const seen = await reach(spec, "installing", 1);
          return seen.step === 2 ? seen : undefined;
        },
        { timeoutMs },
      );
      expect(at.steps).toBe(4);
      expect(at.message).toContain(wait);
      await expect(open(spec)).rejects.toBeInstanceOf(RuntimeRejected);
      await runtime.remove(spec);
      await reach(spec, "absent");
    });

    test("runs to the end, and its log holds headings, output, exit codes and the runtime's own words", async () => {
      const before = Date.now();
      const spec = await running({
        startupCommands: ['echo "value=$GREETING"; echo oops >&2', "printf 'half'; exit 0", "pwd"],
        variables: { GREETING: 'it\'s "$HOME" `id`' },
      });
      const { startedAtMs } = await reach(spec, "running", 1);
      expect(startedAtMs).toBeGreaterThan(before - 60_000);
      expect(startedAtMs).toBeLessThan(Date.now() + 60_000);
      const lines = await readLog(spec, null, ({ message }) => message === "==> [3/3] exit code 0");
      const installation = lines.filter(({ source }) => source === "container").map(({ message }) => message);
      expect(installation).toEqual([
        '==> [1/3] echo "value=$GREETING"; echo oops >&2',
        'value=it\'s "$HOME" `id`',
        "oops",
        "==> [1/3] exit code 0",
        "==> [2/3] printf 'half'; exit 0",
        expect.stringMatching(/^half/),
        ...(installation.includes("half") ? ["==> [2/3] exit code 0"] : []),
        "==> [3/3] pwd",
        expect.stringContaining("/"),
        "==> [3/3] exit code 0",
      ]);
      expect(lines.some(({ source }) => source === "system")).toBe(true);
      expect(lines.every(({ generation }) => generation === 1)).toBe(true);
    });

    test("a command that fails for good is named with its exit code", async () => {
      const spec = specOf({ startupCommands: ["true", "echo tried; exit 7", "echo never"] });
      await runtime.ensure(spec);
      const { problem } = await reach(spec, "failed", 1);
      expect(problem.kind).toBe("command_failed");
      expect(problem.message).toBe("Startup command 2 of 3 failed with exit code 7: echo tried; exit 7");
      await runtime.ensure(spec);
      await runtime.stop(spec);
      await reach(spec, "stopped");
      const lines = await readLog(spec, null, () => false);
      expect(lines.filter(({ message }) => message === "tried").length).toBe(3);
      expect(lines.some(({ message }) => message === "never")).toBe(false);
    });

    test("what runs after the installation logs as the application", async () => {
      const spec = await running({
        startupCommands: ["(while [ ! -e go ]; do sleep 0.1; done; echo later) &"],
      });
      await run(spec, "touch go");
      const lines = await readLog(spec, null, ({ message }) => message === "later");
      expect(lines.at(-1)).toMatchObject({ source: "application", message: "later" });
    });

    test("ensure can be repeated, also at the same time, and starts once", async () => {
      const spec = specOf({ startupCommands: ["echo begun >> begun"] });
      await Promise.all([runtime.ensure(spec), runtime.ensure({ ...spec }), runtime.ensure({ ...spec })]);
      const { startedAtMs } = await reach(spec, "running", 1);
      await runtime.ensure(spec);
      expect(await reach(spec, "running", 1)).toMatchObject({ startedAtMs });
      expect(await run(spec, "cat begun")).toBe("begun");
    });

    test("stop ends everything and keeps the workspace; the next generation finds it", async () => {
      const spec = await running({ variables: { WHICH: "first" } });
      expect(await run(spec, "echo kept > file; echo $WHICH")).toBe("first");
      const terminal = await open(spec);
      await runtime.stop(spec);
      await runtime.stop(spec);
      await reach(spec, "stopped");
      await terminal.exited;
      expect(await runtime.usage(spec)).toBe(null);
      await expect(open(spec)).rejects.toBeInstanceOf(RuntimeRejected);

      await runtime.ensure({ ...spec, generation: 2, variables: { WHICH: "second" } });
      await reach(spec, "running", 2);
      expect(await run(spec, "cat file; echo $WHICH")).toBe("kept\nsecond");
    });

    test("another generation replaces the processes of the one before", async () => {
      const spec = await running({ startupCommands: ["sleep 7654 & echo $! > pid"] });
      await runtime.ensure({ ...spec, generation: 2, startupCommands: ["echo 2 > generation"] });
      await reach(spec, "running", 2);
      expect(await run(spec, "cat generation; ps | grep -c '[s]leep 7654' || true")).toMatch(/^2\n0$/);
    });

    test("remove works from every phase and leaves nothing", async () => {
      const waiting = specOf({ startupCommands: ["sleep 1000"] });
      const failed = specOf({ startupCommands: ["exit 1"] });
      const ready = specOf();
      await Promise.all([waiting, failed, ready].map((spec) => runtime.ensure(spec)));
      await Promise.all([reach(waiting, "installing"), reach(failed, "failed"), reach(ready, "running")]);
      const begun = specOf();
      await runtime.ensure(begun);
      for (const spec of [waiting, failed, ready, begun]) {
        await runtime.remove(spec);
        await runtime.remove(spec);
      }
      for (const spec of [waiting, failed, ready, begun]) await reach(spec, "absent");
      const left = (await runtime.list()).map(({ environmentId }) => environmentId);
      for (const { environmentId } of [waiting, failed, ready, begun])
        expect(left).not.toContain(environmentId);
    });

    test("list names what there is, with its owner", async () => {
      const spec = await running();
      const listed = expect.objectContaining({ environmentId: spec.environmentId, userId });
      expect(await runtime.list()).toContainEqual(listed);
      await runtime.stop(spec);
      await reach(spec, "stopped");
      expect(await runtime.list()).toContainEqual(listed);
    });

    test("changes tells of what happens and ends with its signal", async () => {
      const stop = new AbortController();
      const told = new Set<string>();
      const listening = (async () => {
        for await (const ref of runtime.changes(stop.signal)) told.add(ref.environmentId);
      })();
      const spec = await running();
      await until(() => told.has(spec.environmentId), { timeoutMs });
      stop.abort();
      await listening;
    });

    test("a log goes on with exactly the next line, over cursors and a runtime opened again", async () => {
      const count = 300;
      const spec = await running({
        startupCommands: [`i=0; while [ $i -lt ${count} ]; do i=$((i+1)); echo "line $i"; done`],
      });
      const isLast = ({ message }: LogLine) => message === `line ${count}`;
      const whole = await readLog(spec, null, isLast);
      const cut = whole.findIndex(({ message }) => message === "line 123");
      const rest = await readLog(spec, whole[cut]?.cursor ?? null, isLast);
      expect(rest).toEqual(whole.slice(cut + 1));

      await runtime.close();
      runtime = await subject.open();
      const again = await readLog(spec, whole[cut]?.cursor ?? null, isLast);
      expect(again.map(({ message }) => message)).toEqual(whole.slice(cut + 1).map(({ message }) => message));
      expect(new Set(again.map(({ cursor }) => cursor)).size).toBe(again.length);
    });

    test("a long line is logged as it was written, in as many parts as it takes", async () => {
      const spec = await running({
        startupCommands: [
          "printf 1; i=0; while [ $i -lt 12500 ]; do i=$((i+1)); printf éé; done; echo; echo end",
        ],
      });
      const lines = await readLog(spec, null, ({ message }) => message === "end");
      const begin = lines.findIndex(({ message }) => message.startsWith("1é"));
      const parts = lines.slice(begin, -1).map(({ message }) => message);
      expect(parts.join("")).toBe(`1${"é".repeat(25_000)}`);
    });

    test("a log goes on with exactly the next line after one that took seconds to be written", async () => {
      const spec = await running({
        startupCommands: [
          "head -c 30000 /dev/zero | tr '\\000' a; sleep 3; echo; echo next; sleep 1; echo last",
        ],
      });
      const isLast = ({ message }: LogLine) => message === "last";
      const whole = await readLog(spec, null, isLast);
      const next = whole.findIndex(({ message }) => message === "next");
      expect(await readLog(spec, whole[next]?.cursor ?? null, isLast)).toEqual(whole.slice(next + 1));
    });

    test("what separates marks begins a line of a log, and is not shown", async () => {
      const spec = await running({ startupCommands: ["printf 'one\\036two\\n\\036three\\nend\\n'"] });
      const lines = await readLog(spec, null, ({ message }) => message === "end");
      expect(lines.slice(-4).map(({ message }) => message)).toEqual(["one", "two", "three", "end"]);
    });

    test("following a log ends when the environment stops and everything was given", async () => {
      const spec = await running({ startupCommands: ["echo first"] });
      const followed = readLog(spec, null, () => false);
      await runtime.stop(spec);
      const lines = await followed;
      expect(lines.some(({ message }) => message === "first")).toBe(true);
      await reach(spec, "stopped");
    });

    test("a terminal is a shell in the workspace with the right size from its first prompt", async () => {
      const spec = await running();
      const terminal = await open(spec, { cols: 101, rows: 33 });
      expect(await terminal.run("stty size; test -t 0 && echo tty; echo $TERM")).toBe(
        "33 101\ntty\nxterm-256color",
      );
      terminal.type("exit 5\n");
      expect(await terminal.exited).toBe(5);
      terminal.pty.write(Buffer.from("x"));
      terminal.pty.resize({ cols: 10, rows: 10 });
      terminal.pty.pause();
      terminal.pty.resume();
      terminal.pty.kill();
    });

    test("a resize is seen by what runs in the terminal", async () => {
      const spec = await running();
      const terminal = await open(spec);
      terminal.type(
        `sh -c 'trap "echo si\\"\\"ze \\$(stty size)" WINCH; echo rea""dy; while :; do sleep 0.1; done'\n`,
      );
      await terminal.saw("ready");
      terminal.pty.resize({ cols: 132, rows: 50 });
      await terminal.saw("size 50 132");
      terminal.pty.kill();
      await terminal.exited;
    });

    test("Ctrl-C reaches the foreground job only", async () => {
      const spec = await running();
      const terminal = await open(spec);
      terminal.type(`sh -c "echo rea''dy; exec sleep 1000"\n`);
      await terminal.saw("ready");
      terminal.type("\x03");
      expect(await terminal.run("echo still $((20+3))")).toContain("still 23");
      terminal.pty.kill();
      await terminal.exited;
    });

    test("bytes pass untouched both ways, characters cut anywhere", async () => {
      const spec = await running();
      const terminal = await open(spec);
      const text = "grüße-終端-👋🏽-é";
      terminal.type(`sh -c "stty -echo; echo rea''dy; exec cat > got"; stty echo\n`);
      await terminal.saw("ready");
      for (const byte of Buffer.from(`${text}\n`)) terminal.pty.write(Uint8Array.of(byte));
      terminal.type("\x04");
      await terminal.run("true");
      expect(await terminal.run("cat got")).toBe(text);
      expect(await terminal.run("printf '\\377\\000\\200' | od -An -tx1")).toContain("ff 00 80");
      terminal.pty.kill();
      await terminal.exited;
    });

    test("a signal's exit code is 128 and its number", async () => {
      const spec = await running();
      const terminal = await open(spec);
      terminal.type("kill -9 $$\n");
      expect(await terminal.exited).toBe(137);
    });

    test("kill ends the shell and its background jobs", async () => {
      const spec = await running();
      const terminal = await open(spec);
      await terminal.run("sleep 8765 & sleep 8766 & true");
      terminal.type("sleep 8767\n");
      terminal.pty.kill();
      await terminal.exited;
      await until(
        async () => /^0$/m.test(await run(spec, "ps ax 2>/dev/null | grep -c '[s]leep 876' || true")),
        {
          timeoutMs,
        },
      );
    });

    test("pause holds up a flood, resume goes on, and Ctrl-C gets through", async () => {
      const spec = await running();
      const terminal = await open(spec);
      terminal.collect = false;
      terminal.type("yes aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n");
      await until(() => terminal.bytes > 1_000_000, { timeoutMs });
      terminal.pty.pause();
      const settled = await quiet(() => terminal.bytes, timeoutMs);
      const memory = process.memoryUsage.rss();
      expect(await quiet(() => terminal.bytes, timeoutMs)).toBe(settled);
      expect(process.memoryUsage.rss() - memory).toBeLessThan(floodLimitBytes);
      terminal.pty.resume();
      await until(() => terminal.bytes > settled + 1_000_000, { timeoutMs });
      terminal.type("\x03");
      terminal.collect = true;
      await quiet(() => terminal.bytes, timeoutMs);
      expect(await terminal.run("echo back $((40+2))")).toContain("back 42");
      terminal.pty.kill();
      await terminal.exited;
    });

    test("write says when too much waits, and onDrain when it may go on; nothing is lost", async () => {
      const spec = await running();
      const terminal = await open(spec);
      await terminal.run("rm -f go");
      terminal.type("stty raw -echo; echo rea''dy; while [ ! -e go ]; do sleep 0.1; done; ");
      const total = PTY_INPUT_HIGH_WATER_BYTES * 3;
      // Counted by the shell: what is typed is echoed, and is not the answer.
      terminal.type(`head -c $((${PTY_INPUT_HIGH_WATER_BYTES} * 3)) | tr -d '\\n' | wc -c; stty sane\n`);
      await terminal.saw("ready");
      const chunk = new Uint8Array(32 * 1024).fill(97);
      let sent = 0;
      let accepted = true;
      while (sent < total && accepted) {
        accepted = terminal.pty.write(chunk);
        sent += chunk.length;
      }
      expect(accepted).toBe(false);
      expect(sent).toBeGreaterThan(PTY_INPUT_HIGH_WATER_BYTES / 2);
      await run(spec, "touch go");
      await until(() => terminal.drains > 0, { timeoutMs });
      for (; sent < total; sent += chunk.length) terminal.pty.write(chunk);
      await terminal.saw(String(total));
      terminal.pty.kill();
      await terminal.exited;
    });

    test("kill ends a terminal whose input nobody reads", async () => {
      const terminal = await open(await running());
      terminal.type("stty raw -echo; echo rea''dy; sleep 1000\n");
      await terminal.saw("ready");
      while (terminal.pty.write(new Uint8Array(32 * 1024)));
      terminal.pty.kill();
      expect(await terminal.exited).toBeGreaterThan(128);
    });

    test("several terminals of one environment see the same processes and files", async () => {
      const spec = await running();
      const [one, two] = [await open(spec), await open(spec)];
      await one.run("sleep 5432 & echo here > shared");
      expect(await two.run("cat shared; ps ax 2>/dev/null | grep -c '[s]leep 5432'")).toBe("here\n1");
      for (const terminal of [one, two]) {
        terminal.pty.kill();
        await terminal.exited;
      }
    });

    test("usage is measured, and null where it can't be known", async () => {
      const spec = await running({ startupCommands: ["head -c 3000000 /dev/zero > big"] });
      const terminal = await open(spec);
      terminal.collect = false;
      terminal.type("while :; do :; done\n");
      const busy = await until(
        async () => {
          const usage = await runtime.usage(spec);
          return usage && (usage.cpuMillis === null || usage.cpuMillis > 50) && usage.memoryBytes !== 0
            ? usage
            : undefined;
        },
        { timeoutMs, intervalMs: 300 },
      );
      expect(busy.startedAtMs).toBe((await reach(spec, "running")).startedAtMs);
      if (busy.storageBytes !== null) expect(busy.storageBytes).toBeGreaterThanOrEqual(3_000_000);
      if (busy.memoryBytes !== null) expect(busy.memoryBytes).toBeGreaterThan(100_000);
      terminal.pty.kill();
      await terminal.exited;
    });

    test("capacity has the host's or the nodes' real figures", async () => {
      const capacity = await runtime.capacity();
      expect(capacity.nodes).toBeGreaterThan(0);
      expect(capacity.readyNodes).toBeGreaterThan(0);
      expect(capacity.totalCpuMillis ?? 1000).toBeGreaterThanOrEqual(1000);
      expect(capacity.totalMemoryBytes ?? 2 ** 30).toBeGreaterThan(2 ** 28);
      expect(capacity.components.length).toBeGreaterThan(0);
    });
  });
}

function hasPhase<P extends Observed["phase"]>(
  observed: Observed,
  phase: P,
): observed is Extract<Observed, { phase: P }> {
  return observed.phase === phase;
}

/** Waits until a figure stays the same for a while, and gives it. */
async function quiet(figure: () => number, timeoutMs: number): Promise<number> {
  let last = -1;
  let same = 0;
  await until(
    () => {
      same = figure() === last ? same + 1 : 0;
      last = figure();
      return same >= 6;
    },
    { timeoutMs, intervalMs: 50 },
  );
  return last;
}

/** A terminal and someone who types and reads. */
export class TestTerminal {
  text = "";
  bytes = 0;
  drains = 0;
  /** False: what comes is counted and let go. */
  collect = true;
  readonly exited: Promise<number | null>;
  #exit: (code: number | null) => void;
  #pty: Pty | undefined;
  #commands = 0;
  readonly #decoder = new TextDecoder();
  readonly #timeoutMs: number;

  private constructor(timeoutMs: number) {
    const exit = Promise.withResolvers<number | null>();
    this.exited = exit.promise;
    this.#exit = exit.resolve;
    this.#timeoutMs = timeoutMs;
  }

  static async open(runtime: Runtime, ref: EnvironmentRef, size: TerminalSize, timeoutMs = 10_000) {
    const terminal = new TestTerminal(timeoutMs);
    terminal.#pty = await runtime.openTerminal(ref, {
      size,
      onData: (bytes) => {
        terminal.bytes += bytes.byteLength;
        if (terminal.collect) terminal.text += terminal.#decoder.decode(bytes, { stream: true });
      },
      onExit: (code) => terminal.#exit(code),
      onDrain: () => {
        terminal.drains++;
      },
    });
    return terminal;
  }

  get pty(): Pty {
    if (!this.#pty) throw new Error("the terminal is not open");
    return this.#pty;
  }

  type(text: string): void {
    this.pty.write(Buffer.from(text));
  }

  async saw(text: string): Promise<void> {
    await until(() => this.text.includes(text), {
      timeoutMs: this.#timeoutMs,
      message: () => `not seen: ${text}; but ${JSON.stringify(this.text.slice(-500))}`,
    });
  }

  /** What `command` prints, typed at the prompt. */
  async run(command: string): Promise<string> {
    const mark = `${++this.#commands}${Math.floor(Math.random() * 1e9)}`;
    // The halves are put together by the shell: the echo of what is typed does not match.
    this.type(`echo be''gin-${mark}; ${command}\necho e''nd-${mark}\n`);
    await this.saw(`end-${mark}\r\n`);
    const [, after = ""] = this.text.split(`begin-${mark}\r\n`);
    const [printed = ""] = after.split(`end-${mark}\r\n`);
    return plain(printed, mark);
  }
}

/** Without the prompt, echo and colours that stand among the lines. */
function plain(text: string, mark: string): string {
  const sequence = String.fromCharCode(27);
  return text
    .split("\r\n")
    .map((line) =>
      line.replaceAll(new RegExp(`${sequence}\\[[0-9;?]*[a-zA-Z]`, "g"), "").replaceAll("\r", ""),
    )
    .filter((line) => !line.includes(`nd-${mark}`) && line !== "")
    .join("\n");
}
