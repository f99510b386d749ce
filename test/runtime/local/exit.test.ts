import { expect, test } from "bun:test";
import { spawnPty } from "../../../src/runtime/local/pty.ts";

/** The exit code of a terminal in which `command` runs. */
async function exitCode(command: string): Promise<number | null> {
  const exit = Promise.withResolvers<number | null>();
  spawnPty(
    ["sh", "-c", command],
    { cwd: "/tmp", env: { PATH: "/usr/bin:/bin" } },
    { size: { cols: 80, rows: 24 }, onData: () => {}, onExit: exit.resolve, onDrain: () => {} },
  );
  return await exit.promise;
}

/** All that end a program which does not handle them (signal(7)): by name, and of the real-time ones some. */
const ENDING = [
  1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 24, 25, 26, 27, 29, 30, 31, 34, 50, 64,
];

test("a terminal's exit code is its shell's, 128 and its number for every signal that ends it", async () => {
  expect(await Promise.all([0, 1, 255].map((code) => exitCode(`exit ${code}`)))).toEqual([0, 1, 255]);
  const codes = await Promise.all(
    ENDING.map((signal) => exitCode(`ulimit -c 0; kill -${signal} $$; exit 1`)),
  );
  expect(codes).toEqual(ENDING.map((signal) => 128 + signal));
});
