import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, readFileSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { newId } from "../../../src/lib/ids.ts";
import { readProcess } from "../../../src/runtime/local/processes.ts";
import { shellQuote } from "../../../src/runtime/startup.ts";
import { until } from "../../until.ts";
import { temporaryFolder } from "./harness.ts";

const PATH = Bun.env.PATH ?? "";

let folder = temporaryFolder();
let workspace = "";
beforeEach(() => {
  folder = temporaryFolder();
  workspace = join(folder.path, "workspaces", newId());
  mkdirSync(workspace, { recursive: true });
});
afterEach(() => folder.remove());

const file = (name: string) => join(folder.path, name);

/** For `sh`: a server that takes the data folder over and ends. */
function server(dataDir = folder.path): string {
  const task = { dataDir, sandbox: false, specs: [], sleep: "" };
  return `bun ${join(import.meta.dir, "server.ts")} ${shellQuote(JSON.stringify(task))} >${file("said")}`;
}

async function takenOver(): Promise<void> {
  await until(() => existsSync(file("said")) && readFileSync(file("said"), "utf8") === "ready\n");
}

/** For `sh`: what an environment leaves that has cleared its variables; its pid is in the file `pid`. */
const ORPHAN = "(env -i setsid sh -c 'echo $$ >pid; exec sleep 60' >/dev/null 2>&1 &)";

async function orphanPid(): Promise<number> {
  const text = () => (existsSync(join(workspace, "pid")) ? readFileSync(join(workspace, "pid"), "utf8") : "");
  return Number(await until(() => /^\d+\n$/.test(text()) && text()));
}

async function isThere(pid: number): Promise<boolean> {
  const now = await readProcess(pid);
  return now !== undefined && !now.exiting;
}

describe("a server that starts", () => {
  test.each(["sh", "bun run"])("ends what has lost its parent in a workspace: under %s", async (runner) => {
    await Bun.write(file("package.json"), JSON.stringify({ scripts: { it: `sh ${file("it")}` } }));
    await Bun.write(file("bunfig.toml"), "[run]\nnoOrphans = true\n");
    await Bun.write(file("it"), `cd ${workspace}; ${ORPHAN}; ${server()}; read -r end`);
    const command = runner === "bun run" ? ["bun", "run", "it"] : ["sh", file("it")];
    const child = Bun.spawn(command, { cwd: folder.path, env: { PATH }, stdin: "pipe", stderr: "ignore" });
    const pid = await orphanPid();
    await takenOver();
    expect(await isThere(pid)).toBe(false);
    await child.stdin.end();
    await child.exited;
  });

  test("ends that also when its data folder was named by a symbolic link", async () => {
    symlinkSync(folder.path, file("link"));
    await Bun.spawn(["sh", "-c", `${ORPHAN}; ${server(file("link"))}`], { cwd: workspace, env: { PATH } })
      .exited;
    expect(await isThere(await orphanPid())).toBe(false);
  });
});

describe.if(Boolean(Bun.which("tmux")))("a server that starts leaves people's own terminals alone", () => {
  const tmux = async (cwd: string, ...command: string[]) => {
    const child = Bun.spawn(["tmux", "-S", file("tmux"), "-f", "/dev/null", ...command], {
      cwd,
      env: { PATH },
    });
    const said = await new Response(child.stdout).text();
    expect(await child.exited).toBe(0);
    return said.trim();
  };
  const window = async (cwd: string, verb: string, command: string) =>
    Number(await tmux(cwd, verb, "-dP", "-F", "#{pane_pid}", command));
  afterEach(async () => {
    await tmux(folder.path, "kill-server");
  });

  test("a window beside its own, gone to a workspace", async () => {
    const theirs = await window(workspace, "new-session", "sleep 1000");
    await window(folder.path, "new-window", server());
    await takenOver();
    expect(await isThere(theirs)).toBe(true);
  });

  test("all windows of a tmux that was started in a workspace", async () => {
    const theirs = await window(workspace, "new-session", "cd /; exec sleep 1000");
    await Bun.spawn(["sh", "-c", ORPHAN], { cwd: workspace, env: { PATH } }).exited;
    const pid = await orphanPid();
    await Bun.spawn(["sh", "-c", server()], { env: { PATH } }).exited;
    await takenOver();
    expect(await isThere(theirs)).toBe(true);
    expect(await isThere(pid)).toBe(false);
  });
});
