import { afterAll, describe, expect, test } from "bun:test";
import { type LocalPty, spawnPty } from "../../../src/runtime/local/pty.ts";
import { until } from "../../until.ts";

const open: LocalPty[] = [];
afterAll(async () => {
  for (const pty of open) pty.kill();
  await Promise.all(open.map((pty) => pty.ended));
});

/** An interactive shell, ready for its first command. */
async function shell() {
  let output = "";
  const pty = spawnPty(
    ["bash", "--norc", "--noprofile"],
    { cwd: "/tmp", env: { PATH: "/usr/bin:/bin", PS1: "ready$ " } },
    {
      size: { cols: 80, rows: 24 },
      onData: (bytes) => {
        output += Buffer.from(bytes).toString();
      },
      onExit: () => {},
      onDrain: () => {},
    },
  );
  open.push(pty);
  await until(() => output.includes("ready$ "));
  return pty;
}

describe("a terminal's jobs", () => {
  test.each<[string, string, { foreground: string | null; count: number }]>([
    ["nothing but its shell", "", { foreground: null, count: 0 }],
    ["a program in the foreground", "sleep 100", { foreground: "sleep", count: 1 }],
    ["a pipeline", "sleep 100 | cat", { foreground: "sleep", count: 2 }],
    ["one in the background", "sleep 100 &", { foreground: null, count: 1 }],
  ])("%s", async (_what, command, jobs) => {
    const pty = await shell();
    pty.write(Buffer.from(`${command}\r`));
    await until(async () => Bun.deepEquals(await pty.jobs?.(), jobs), {
      message: `not ${JSON.stringify(jobs)}`,
    });
  });

  test("of one that has ended are not known", async () => {
    const pty = await shell();
    pty.write(Buffer.from("exit\r"));
    await pty.ended;
    expect(await pty.jobs?.()).toBeNull();
  });
});
