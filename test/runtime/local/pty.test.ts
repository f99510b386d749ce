import { describe, expect, test } from "bun:test";
import { readdirSync, readFileSync, rmSync } from "node:fs";
import { spawnPty } from "../../../src/runtime/local/pty.ts";
import { settled, until } from "../../until.ts";

/** A terminal in which `command` floods; `onBytes` is told how much has come with each read, and the read itself. */
function flood(command: string, onBytes: (total: number, bytes: Uint8Array) => void = () => {}) {
  let total = 0;
  const pty = spawnPty(
    ["sh", "-c", command],
    { cwd: "/tmp", env: { PATH: "/usr/bin:/bin" } },
    {
      size: { cols: 80, rows: 24 },
      onData: (bytes) => {
        total += bytes.length;
        onBytes(total, bytes);
      },
      onExit: () => {},
      onDrain: () => {},
    },
  );
  return {
    pty,
    get total() {
      return total;
    },
    [Symbol.asyncDispose]: async () => {
      pty.kill();
      await pty.ended;
    },
  };
}

describe("a flooding terminal", () => {
  test.each(["yes", "stty raw -echo; yes"])("that is paused stops at once: %s", async (command) => {
    const place: { pausedAt?: number } = {};
    await using terminal = flood(command, (total) => {
      if (place.pausedAt !== undefined || total < 1_000_000) return;
      place.pausedAt = total;
      terminal.pty.pause();
    });
    const pausedAt = await until(() => place.pausedAt);
    const total = await settled(() => terminal.total);
    // What was on its way.
    expect(total - pausedAt).toBeLessThan(300_000);
    terminal.pty.resume();
    await until(() => terminal.total > total + 1_000_000);
  });

  test("that is paused is held up by little things too, each of which was read as soon as it came", async () => {
    const printed = `/tmp/devpocket-printed-${crypto.randomUUID()}`;
    const line = "x".repeat(4000);
    const command = `while :; do echo ${line}; n=$((n + 1)); echo $n >${printed}; sleep 0.001; done`;
    let text = "";
    await using terminal = flood(`stty raw -echo; ${command}`, (_total, bytes) => {
      text += Buffer.from(bytes);
      if (text.length < 20_000) return;
      terminal.pty.pause();
    });
    await until(() => text.length >= 20_000);
    const lines = () => Number(readFileSync(printed, "utf8"));
    expect((await settled(lines)) * line.length).toBeLessThan(300_000);
    const length = text.length;
    terminal.pty.resume();
    await until(() => text.length > length);
    expect(text.split("\n").every((each) => line.startsWith(each))).toBe(true);
    terminal.pty.kill();
    await terminal.pty.ended;
    rmSync(printed);
  });

  test("lets other work run meanwhile", async () => {
    await using terminal = flood("yes");
    await until(() => terminal.total > 1_000_000);
    const waits: number[] = [];
    for (let n = 0; n < 20; n++) {
      const began = performance.now();
      await Bun.sleep(1);
      waits.push(performance.now() - began);
    }
    waits.sort((a, b) => a - b);
    expect(waits[10]).toBeLessThan(50);
  });

  test("that is paused again and again loses no byte, of line ends neither", async () => {
    const count = 1_500_000;
    const hash = new Bun.CryptoHasher("sha256");
    let pausedAt = 0;
    await using terminal = flood(`stty -echo; seq 1 ${count}; exit 3`, (total, bytes) => {
      hash.update(bytes);
      if (total - pausedAt < 20_000) return;
      pausedAt = total;
      terminal.pty.pause();
      setImmediate(() => terminal.pty.resume());
    });
    await terminal.pty.ended;
    const expected = new Bun.CryptoHasher("sha256");
    for (let n = 1; n <= count; n++) expected.update(`${n}\r\n`);
    expect(hash.digest("hex")).toBe(expected.digest("hex"));
  });

  test("keeps what its user has stopped with Ctrl-S stopped", async () => {
    await using terminal = flood("yes");
    await until(() => terminal.total > 100_000);
    terminal.pty.pause();
    terminal.pty.write(Buffer.from("\x13"));
    terminal.pty.resume();
    const before = await settled(() => terminal.total);
    terminal.pty.write(Buffer.from("\x11"));
    await until(() => terminal.total > before + 1_000_000);
  });

  test("that is paused ends with its shell, its output complete", async () => {
    await using terminal = flood("head -c 2000000 /dev/zero | tr '\\0' x; exit 3", (total) => {
      terminal.pty.pause();
      if (total < 1_980_000) setTimeout(() => terminal.pty.resume(), 1);
      // For longer than the last output is waited for.
      else setTimeout(() => terminal.pty.resume(), 700);
    });
    await terminal.pty.ended;
    expect(terminal.total).toBe(2_000_000);
  });
});

describe("a terminal", () => {
  const SIZE = { cols: 101, rows: 33 };

  /** A terminal in which `command` runs, and what is told of it. */
  function start(command: string) {
    const told = { text: "", drained: 0 };
    const pty = spawnPty(
      ["sh", "-c", command],
      { cwd: "/tmp", env: { PATH: "/usr/bin:/bin" } },
      {
        size: SIZE,
        onData: (bytes) => (told.text += Buffer.from(bytes)),
        onExit: () => {},
        onDrain: () => told.drained++,
      },
    );
    return { pty, told };
  }

  async function outputOf(command: string): Promise<string> {
    const { pty, told } = start(command);
    await pty.ended;
    return told.text;
  }

  test("has its size, and is its session's own", async () => {
    expect(await outputOf("stty size; ps -o sid=,tpgid= -p $$ | xargs -n1 test $$ = && echo own")).toBe(
      "33 101\r\nown\r\n",
    );
  });

  test("takes all input that its program reads late, and says when more may follow", async () => {
    const { pty, told } = start("stty raw -echo; echo ready; sleep 0.3; head -c 1000000 | sha256sum");
    await until(() => told.text.includes("ready"));
    const input = Buffer.alloc(1_000_000).map((_, n) => n % 251);
    expect(pty.write(input)).toBe(false);
    await pty.ended;
    expect(told.drained).toBe(1);
    expect(told.text).toContain(new Bun.CryptoHasher("sha256").update(input).digest("hex"));
  });

  test("takes no more of what nobody can read, and lets whoever types go on", async () => {
    const go = `/tmp/devpocket-go-${crypto.randomUUID()}`;
    const command = `echo ready; until [ -e ${go} ]; do sleep 0.01; done; exec <&- >&- 2>&-; exec sleep 1000`;
    const { pty, told } = start(`stty raw -echo; ${command}`);
    await until(() => told.text.includes("ready"));
    expect(pty.write(Buffer.alloc(1_000_000))).toBe(false);
    await Bun.write(go, "");
    await until(() => told.drained === 1);
    expect(pty.write(Buffer.alloc(1_000_000))).toBe(true);
    pty.kill();
    await pty.ended;
    rmSync(go);
  });

  test("leaves no descriptor open", async () => {
    const open = () => readdirSync("/proc/self/fd").length;
    await outputOf("echo warm");
    const before = open();
    for (let n = 0; n < 20; n++) await outputOf("echo hello; sleep 100 &");
    await until(() => open() <= before);
  });
});
