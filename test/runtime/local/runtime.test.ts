import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import {
  accessSync,
  constants,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import type { LocalRuntime } from "../../../src/runtime/local/runtime.ts";
import type { EnvironmentSpec } from "../../../src/runtime/runtime.ts";
import { TestTerminal } from "../../runtime-contract.ts";
import { settled, until } from "../../until.ts";
import { localRuntime, localSpec, logOf, reach, runIn, temporaryFolder } from "./harness.ts";

setDefaultTimeout(30_000);

const MODES = [true, false].filter((sandbox) => !sandbox || Bun.which("bwrap"));

describe.each(MODES)("the local runtime, sandboxed: %p", (sandbox) => {
  const folder = temporaryFolder();
  let runtime: LocalRuntime;

  beforeAll(async () => {
    runtime = await localRuntime(folder.path, sandbox);
  });
  afterAll(async () => {
    await runtime.close();
    folder.remove();
  });

  test("says whether environments are sandboxed, and why not", () => {
    expect(runtime.isolation).toEqual(
      sandbox ? { sandboxed: true } : { sandboxed: false, reason: "switched off" },
    );
  });

  test("commands of a template with an image are logged as not run, and it reaches running", async () => {
    const spec = localSpec({
      image: "python:3.11-slim",
      startupCommands: ["touch /tmp/ran; touch ran", "apt-get\nupdate"],
    });
    await runtime.ensure(spec);
    await reach(runtime, spec, "running");
    await runtime.stop(spec);
    const system = (await logOf(runtime, spec)).filter(({ source }) => source === "system");
    expect(system.map(({ message }) => message)).toEqual([
      expect.stringContaining("Starting on the local runtime"),
      "not run on the local runtime: touch /tmp/ran; touch ran",
      "not run on the local runtime: apt-get update",
      "Stopping",
      "Stopped",
    ]);
    expect(readdirSync(join(folder.path, "workspaces", spec.environmentId))).toEqual([]);
    await runtime.remove(spec);
    await reach(runtime, spec, "absent");
  });

  test("removing an environment also removes a tree that is deeper than a path can be long", async () => {
    // Six that are within the limit of 4096 bytes, moved into one another.
    const tree = "d/".repeat(1000);
    const deeper = `for i in 6 5 4 3 2 1; do mkdir -p $i/${tree}; [ $i = 6 ] || mv $((i + 1)) $i/${tree}; done`;
    const spec = localSpec({ startupCommands: [deeper, `chmod 0 1/${tree}`] });
    await runtime.ensure(spec);
    await reach(runtime, spec, "running");
    await runtime.remove(spec);
    await reach(runtime, spec, "absent");
    expect(existsSync(join(folder.path, "workspaces", spec.environmentId))).toBe(false);
  });

  test("removing an environment also removes folders that can't be written to", async () => {
    const spec = localSpec();
    await runtime.ensure(spec);
    await reach(runtime, spec, "running");
    await runIn(runtime, spec, "mkdir -p a/b/c && touch a/b/c/d && chmod -R a-w a && ln -s /etc link");
    await runtime.remove(spec);
    await reach(runtime, spec, "absent");
    expect(existsSync(join(folder.path, "workspaces", spec.environmentId))).toBe(false);
    expect(existsSync(join(folder.path, "local", spec.environmentId))).toBe(false);
    expect(existsSync("/etc/passwd")).toBe(true);
  });

  test("an owner who has locked themselves out of their workspace is let in at the next start", async () => {
    const spec = localSpec();
    const workspace = join(folder.path, "workspaces", spec.environmentId);
    await runtime.ensure(spec);
    await reach(runtime, spec, "running");
    await runIn(runtime, spec, "echo kept > file; chmod 2050 ~");
    expect(statSync(workspace).mode & 0o7777).toBe(0o2050);
    await runtime.ensure({ ...spec, generation: 2 });
    await reach(runtime, spec, "running");
    expect(await runIn(runtime, spec, "cat file")).toBe("kept");
    expect(statSync(workspace).mode & 0o7777).toBe(0o2750);
    await runtime.remove(spec);
    await reach(runtime, spec, "absent");
  });

  test("the owner's variables reach the environment's processes and nothing else does", async () => {
    const spec = localSpec({
      variables: { LD_PRELOAD: "", UID: "7", PATH: "/usr/bin:/bin", SECRET_WORD: "plum" },
    });
    await runtime.ensure(spec);
    await reach(runtime, spec, "running");
    expect(await runIn(runtime, spec, 'echo "$SECRET_WORD $PATH"')).toBe("plum /usr/bin:/bin");
    const names = (await runIn(runtime, spec, "env | cut -d= -f1 | sort")).split("\n");
    const expected = [
      "DEVPOCKET_ENVIRONMENT",
      "HOME",
      "LANG",
      "LOGNAME",
      "PATH",
      "PWD",
      "SHELL",
      "TERM",
      "USER",
    ];
    const others = ["LD_PRELOAD", "SECRET_WORD", "UID", "DEVPOCKET_LOCAL", "OLDPWD", "SHLVL", "_"];
    expect(names).toEqual(expect.arrayContaining(expected));
    expect(names.filter((name) => ![...expected, ...others].includes(name))).toEqual([]);
    await runtime.remove(spec);
    await reach(runtime, spec, "absent");
  });

  test("a terminal changes no variable of the owner's, and is changed by none", async () => {
    const spec = localSpec({ variables: { run: "/nowhere", bash: "mine" } });
    await runtime.ensure(spec);
    await reach(runtime, spec, "running");
    const printed = await runIn(runtime, spec, 'echo "$run $bash $PS1"');
    expect(printed).toStartWith("/nowhere mine ");
    expect(printed).toContain("devpocket@");
    await runtime.remove(spec);
    await reach(runtime, spec, "absent");
  });

  test("an environment runs and waits where the owner's PATH leads nowhere", async () => {
    const spec = localSpec({
      startupCommands: ['echo "PATH is $PATH"'],
      variables: { PATH: "$PATH:/workspace/bin" },
    });
    await runtime.ensure(spec);
    await reach(runtime, spec, "running");
    expect(await runIn(runtime, spec, 'echo "$PATH"')).toStartWith("$PATH:/workspace/bin\n");
    await runtime.stop(spec);
    await reach(runtime, spec, "stopped");
    const messages = (await logOf(runtime, spec)).map(({ message }) => message);
    expect(messages).toContain("PATH is $PATH:/workspace/bin");
    expect(messages.filter((message) => message.includes("not found"))).toEqual([]);
    await runtime.remove(spec);
    await reach(runtime, spec, "absent");
  });

  /** Names and sizes. */
  function logFiles({ environmentId }: EnvironmentSpec): string[] {
    const log = join(folder.path, "local", environmentId, "log");
    return readdirSync(log).map((name) => `${name} ${statSync(join(log, name)).size}`);
  }

  test("a flood into the log is held up", async () => {
    const spec = localSpec({ startupCommands: ["yes flood & true"] });
    await runtime.ensure(spec);
    await reach(runtime, spec, "running");
    const state = () => logFiles(spec);
    await until(() => state().length > 1);
    // Held up until its second is over: nothing comes for some time although the job would write on.
    const last = await settled(() => state().join());
    await until(() => state().join() !== last);
    expect(state().length).toBeLessThanOrEqual(4);
    await runtime.remove(spec);
    await reach(runtime, spec, "absent");
  });

  test("a flood of short lines waits for a log's reader: none is lost", async () => {
    const count = 450_000;
    const spec = localSpec({ startupCommands: [`(yes '' | head -n ${count}; echo all; sleep 100) & true`] });
    await runtime.ensure(spec);
    const stop = new AbortController();
    const others: string[] = [];
    let empty = 0;
    for await (const { message } of runtime.logs(spec, { after: null, signal: stop.signal })) {
      if (message === "") empty += 1;
      else others.push(message);
      // It comes as far as it may while nobody reads on.
      if (message === "" && empty === 1) await settled(() => logFiles(spec).join());
      if (message === "all") stop.abort();
    }
    expect(others.filter((message) => message.includes("missing"))).toEqual([]);
    expect(empty).toBe(count);
    await runtime.remove(spec);
    await reach(runtime, spec, "absent");
  });

  test.if(Boolean(Bun.which("vim") && Bun.which("top")))("vim and top work in a terminal", async () => {
    const spec = localSpec();
    await runtime.ensure(spec);
    await reach(runtime, spec, "running");
    const terminal = await TestTerminal.open(runtime, spec, { cols: 90, rows: 30 });
    await terminal.run("true");
    terminal.type("vim -u NONE file; echo vim en''ded\n");
    await terminal.saw("\x1b[?1049h");
    terminal.type("iwritten in vim\x1b:wq\r");
    await terminal.saw("vim ended");
    expect(await terminal.run("cat file")).toBe("written in vim");
    terminal.type("top -d 0.2; echo top en''ded\n");
    await terminal.saw("load average");
    terminal.type("q");
    await terminal.saw("top ended");
    expect(await terminal.run("echo after")).toContain("after");
    terminal.pty.kill();
    await terminal.exited;
    await runtime.remove(spec);
    await reach(runtime, spec, "absent");
  });

  test.if(sandbox)(
    "a sandbox shows neither the data folder, other workspaces nor the host's secrets",
    async () => {
      const [one, two] = [localSpec(), localSpec()];
      await Promise.all([one, two].map((spec) => runtime.ensure(spec)));
      await Promise.all([one, two].map((spec) => reach(runtime, spec, "running")));
      writeFileSync(join(folder.path, "workspaces", two.environmentId, "other"), "secret");
      const terminal = await TestTerminal.open(runtime, one, { cols: 300, rows: 50 });
      const say = async (command: string) => await terminal.run(command);
      expect(await say(`ls ${folder.path} /root /home 2>/dev/null; echo $?`)).toBe("2");
      expect(await say("cat /etc/shadow /etc/ssh/* 2>/dev/null; echo $?")).toBe("1");
      expect(await say("id -u; id -un; hostname")).toBe("1000\ndevpocket\nlocal");
      expect(await say("ls /proc | grep -c '^[0-9]*$'")).toMatch(/^[1-9]$/);
      expect(
        await say(
          "touch /usr/x /etc/x /x /run/devpocket/x 2>/dev/null; ls /usr/x /etc/x /x /run/devpocket/x 2>/dev/null",
        ),
      ).toBe("");
      expect(await say("grep -h CapEff /proc/self/status")).toContain("0000000000000000");
      expect(await say("touch /tmp/mine /workspace/mine; ls /tmp")).toBe("mine");
      terminal.pty.kill();
      await terminal.exited;
      expect(await runIn(runtime, two, "ls /tmp /workspace")).not.toContain("mine");
      await Promise.all([one, two].map((spec) => runtime.remove(spec)));
      await Promise.all([one, two].map((spec) => reach(runtime, spec, "absent")));
    },
  );

  test.if(sandbox)(
    "the host's kernel can't be changed from a sandbox, though the server be root",
    async () => {
      const before = readFileSync("/proc/sys/kernel/core_pattern", "utf8");
      const spec = localSpec();
      await runtime.ensure(spec);
      await reach(runtime, spec, "running");
      const attempts = [
        "echo changed > /proc/sys/kernel/core_pattern",
        "unshare -Urmpf --mount-proc sh -c 'echo changed > /proc/sys/kernel/core_pattern'",
        "unshare -Urm sh -c 'umount /proc/sys; echo changed > /proc/sys/kernel/core_pattern'",
        "unshare -Urm sh -c 'mount -o remount,rw /proc/sys; echo changed > /proc/sys/kernel/core_pattern'",
        "unshare -Urmpf sh -c 'mount -t proc proc /tmp; echo changed > /tmp/sys/kernel/core_pattern'",
        "mount -t tmpfs none /usr",
      ];
      for (const attempt of attempts) {
        expect(
          await runIn(runtime, spec, `{ ${attempt}; } >/dev/null 2>&1 && echo done || echo refused`),
        ).toBe("refused");
        expect(readFileSync("/proc/sys/kernel/core_pattern", "utf8")).toBe(before);
      }
      await runtime.remove(spec);
      await reach(runtime, spec, "absent");
    },
  );
});

/** In what sandboxes show of the host; only there for those who may write to it. */
const SHOWN = "/usr/local";

function mayWriteTo(path: string): boolean {
  try {
    accessSync(path, constants.W_OK);
    return true;
  } catch {
    return false;
  }
}

describe.if(MODES.includes(true) && mayWriteTo(SHOWN))("a data folder among the system's own", () => {
  test.each(["itself", "a symbolic link to it"])(
    "is not seen in a sandbox when it is named by %s",
    async (how) => {
      const real = mkdtempSync(join(SHOWN, "devpocket-local-"));
      const outside = temporaryFolder();
      const dataDir = how === "itself" ? real : join(outside.path, "link");
      if (dataDir !== real) symlinkSync(real, dataDir);
      mkdirSync(join(real, "keys"));
      const runtime = await localRuntime(dataDir, true);
      try {
        expect(runtime.isolation).toEqual({ sandboxed: true });
        const spec = localSpec();
        await runtime.ensure(spec);
        await reach(runtime, spec, "running");
        expect(await runIn(runtime, spec, `ls -A ${real}; echo ran`)).toBe("ran");
      } finally {
        await runtime.close();
        outside.remove();
        rmSync(real, { recursive: true });
      }
    },
  );
});

test("a workspace whose removal was cut short is still known", async () => {
  const folder = temporaryFolder();
  const spec = localSpec();
  const first = await localRuntime(folder.path, false);
  await first.ensure(spec);
  await reach(first, spec, "running");
  await first.close();
  for (const path of [["workspaces"], ["local", "run"], ["local", "log"]]) {
    const [top = "", ...inner] = path;
    rmSync(join(folder.path, top, spec.environmentId, ...inner), { recursive: true });
  }
  mkdirSync(join(folder.path, "workspaces", "not-an-id"));
  const second = await localRuntime(folder.path, false);
  expect(await second.observe(spec)).toEqual({ phase: "stopped" });
  expect(await second.list()).toEqual([
    {
      environmentId: spec.environmentId,
      userId: spec.userId,
      objects: [join(folder.path, "workspaces", spec.environmentId)],
    },
  ]);
  await second.remove(spec);
  await reach(second, spec, "absent");
  await second.close();
  folder.remove();
});
