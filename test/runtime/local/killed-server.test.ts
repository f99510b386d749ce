import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { scanProcesses } from "../../../src/runtime/local/processes.ts";
import type { EnvironmentRef } from "../../../src/runtime/runtime.ts";
import { until } from "../../until.ts";
import { localRuntime, localSpec, logOf, reach, temporaryFolder } from "./harness.ts";

setDefaultTimeout(60_000);

const MODES = [true, false].filter((sandbox) => !sandbox || Bun.which("bwrap"));

/** Seconds that nobody else's sleep takes: the processes of this run alone are counted. */
const SLEEP = `${2_000_000_000 + Math.floor(Math.random() * 1e8)}`;

describe.each(MODES)("a server that is killed with -9, sandboxed: %p", (sandbox) => {
  test("leaves processes that the next one ends, and workspaces that it finds", async () => {
    const folder = temporaryFolder();
    const specs = [
      localSpec({ startupCommands: [`echo installed; sleep ${SLEEP}1 & (setsid sleep ${SLEEP}2 &)`] }),
      localSpec({ startupCommands: [`env -i setsid sleep ${SLEEP}3 & true`] }),
    ];
    const before = await leftovers();
    const server = Bun.spawn(
      [
        "bun",
        join(import.meta.dir, "server.ts"),
        JSON.stringify({ dataDir: folder.path, sandbox, specs, sleep: SLEEP }),
      ],
      { stdout: "pipe", stderr: "inherit" },
    );
    try {
      await server.stdout.getReader().read();
      await everythingRuns(folder.path, specs, before);
    } finally {
      server.kill("SIGKILL");
    }
    await server.exited;

    const runtime = await localRuntime(folder.path, sandbox);
    // What was killed may take the kernel a moment on a busy machine.
    await until(async () => (await leftovers()) === before, { message: "processes were left" });
    for (const spec of specs) expect(await runtime.observe(spec)).toEqual({ phase: "stopped" });
    const [first] = specs;
    if (first)
      expect((await logOf(runtime, first)).some(({ message }) => message === "installed")).toBe(true);

    for (const spec of specs) {
      await runtime.ensure({ ...spec, generation: 2 });
      await reach(runtime, spec, "running");
      expect(existsSync(join(folder.path, "workspaces", spec.environmentId, "typed"))).toBe(true);
      await runtime.remove(spec);
      await reach(runtime, spec, "absent");
    }
    expect(await leftovers()).toBe(before);
    await runtime.close();
    folder.remove();
  });
});

async function everythingRuns(dataDir: string, specs: EnvironmentRef[], before: number): Promise<void> {
  for (const { environmentId } of specs) {
    await until(() => existsSync(join(dataDir, "workspaces", environmentId, "typed")));
  }
  await until(async () => (await leftovers()) >= before + 7);
}

/** How many of the processes that the environments have started are there. */
async function leftovers(): Promise<number> {
  const living = (await scanProcesses()).filter(({ exiting }) => !exiting);
  const commands = await Promise.all(
    living.map(({ pid }) =>
      Bun.file(`/proc/${pid}/cmdline`)
        .text()
        .catch(() => ""),
    ),
  );
  return commands.filter((command) => command.startsWith(`sleep\0${SLEEP}`)).length;
}
