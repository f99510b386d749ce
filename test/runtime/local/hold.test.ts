import { describe, expect, test } from "bun:test";
import { spawnPty } from "../../../src/runtime/local/pty.ts";
import { until } from "../../until.ts";

/** A terminal in which `command` floods; `onBytes` is told how much has come with each read. */
function flood(command: string, onBytes: (total: number) => void = () => {}) {
  let total = 0;
  const pty = spawnPty(
    ["sh", "-c", command],
    { cwd: "/tmp", env: { PATH: "/usr/bin:/bin" } },
    {
      size: { cols: 80, rows: 24 },
      onData: (bytes) => {
        total += bytes.length;
        onBytes(total);
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
    await Bun.sleep(100);
    const after = terminal.total - pausedAt;
    // What the kernel's buffers held.
    expect(after).toBeLessThan(300_000);
    const { total } = terminal;
    terminal.pty.resume();
    await until(() => terminal.total > total + 1_000_000);
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

  test("that is paused ends with its shell, its output complete", async () => {
    await using terminal = flood("head -c 2000000 /dev/zero | tr '\\0' x; exit 3", (total) => {
      if (total < 1_000_000) terminal.pty.pause();
      setTimeout(() => terminal.pty.resume(), 1);
    });
    await terminal.pty.ended;
    expect(terminal.total).toBe(2_000_000);
  });
});
