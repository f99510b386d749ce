import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { scanProcesses } from "../../../src/runtime/local/processes.ts";
import type { EnvironmentRef, EnvironmentSpec } from "../../../src/runtime/runtime.ts";
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
    const server = startServer(folder.path, sandbox, specs);
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

  test("goes on untouched when a copy of its data folder is started, and is found again where it was moved", async () => {
    const folder = temporaryFolder();
    const at = (name: string) => join(folder.path, name);
    const specs = [localSpec({ startupCommands: [`sleep ${SLEEP}1 & (env -i setsid sleep ${SLEEP}2 &)`] })];
    const before = await leftovers();
    const server = startServer(at("data"), sandbox, specs);
    try {
      await server.stdout.getReader().read();
      await until(async () => (await leftovers()) >= before + 4);
      const running = await leftovers();
      expect(Bun.spawnSync(["cp", "-a", at("data"), at("copy")]).exitCode).toBe(0);
      // The second start finds what the first has made of the copy.
      for (const _ of ["first", "second"]) {
        const copy = await localRuntime(at("copy"), sandbox);
        for (const spec of specs) expect(await copy.observe(spec)).toEqual({ phase: "stopped" });
        await copy.close();
        expect(await leftovers()).toBe(running);
      }
    } finally {
      server.kill("SIGKILL");
    }
    await server.exited;
    renameSync(at("data"), at("moved"));
    const moved = await localRuntime(at("moved"), sandbox);
    await until(async () => (await leftovers()) === before, { message: "processes were left" });
    await moved.close();
    folder.remove();
  });
});

test("the mark of an older server is kept, and bound to its folder", async () => {
  const folder = temporaryFolder();
  const file = join(folder.path, "local", "installation");
  const older = "0123456789abcdef".repeat(2);
  mkdirSync(join(folder.path, "local"));
  writeFileSync(file, older);
  for (const _ of ["older", "bound"]) {
    await (await localRuntime(folder.path, false)).close();
    expect(readFileSync(file, "utf8")).toMatch(new RegExp(`^${older} \\d+:\\d+$`));
  }
  folder.remove();
});

function startServer(dataDir: string, sandbox: boolean, specs: EnvironmentSpec[]) {
  const task = JSON.stringify({ dataDir, sandbox, specs, sleep: SLEEP });
  return Bun.spawn(["bun", join(import.meta.dir, "server.ts"), task], { stdout: "pipe", stderr: "inherit" });
}

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
