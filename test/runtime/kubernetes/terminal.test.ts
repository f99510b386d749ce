import { describe, expect, test } from "bun:test";
import { exitCodeOf } from "../../../src/runtime/kubernetes/api/exec.ts";
import { Announcement, BECOME_SHELL } from "../../../src/runtime/kubernetes/terminals/terminal.ts";

describe("the announcement of a terminal's session", () => {
  const whole = Buffer.from("typed ahead\x1b]devpocket;42\x07$ ");

  test.each([...whole.keys()])("is taken out of the output, cut at byte %d", (cut) => {
    const announcement = new Announcement();
    const first = announcement.push(whole.subarray(0, cut));
    const found = first ?? announcement.push(whole.subarray(cut));
    expect(found?.session).toBe("42");
    const after = first ? whole.subarray(cut).toString() : "";
    expect(Buffer.from(found?.rest ?? []).toString() + after).toBe("typed ahead$ ");
    expect(announcement.flush().length).toBe(0);
  });

  test("that never comes holds nothing back in the end", () => {
    const announcement = new Announcement();
    expect(announcement.push(Buffer.from("sh: not found"))).toBeNull();
    expect(Buffer.from(announcement.flush()).toString()).toBe("sh: not found");
  });
});

test("the shell of a terminal sees the owner's variables as they are", async () => {
  const shell = Bun.spawn(BECOME_SHELL, {
    env: { PATH: process.env.PATH, shell: "mine", TERM: "xterm", DEVPOCKET_TERM: "dumb" },
    stdin: Buffer.from('echo "$shell $TERM $SHELL $0"\n'),
    stdout: "pipe",
  });
  expect(await shell.stdout.text()).toBe(`mine dumb ${Bun.which("bash")} bash\n`);
});

test("a terminal has a shell where the owner's PATH leads nowhere", async () => {
  const shell = Bun.spawn(BECOME_SHELL, {
    env: { PATH: "$PATH:/workspace/bin" },
    stdin: Buffer.from('echo "$PATH $SHELL"\n'),
    stdout: "pipe",
  });
  expect(await shell.stdout.text()).toBe(`$PATH:/workspace/bin ${Bun.which("bash")}\n`);
});

test.each([
  ['{"status":"Success"}', 0],
  [
    '{"status":"Failure","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"137"}]}}',
    137,
  ],
  ['{"status":"Failure","reason":"InternalError","message":"no such file"}', null],
  ["nonsense", null],
])("the exit code in %s is %p", (status, code) => {
  expect(exitCodeOf(status)).toBe(code);
});
