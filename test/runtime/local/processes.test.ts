import { expect, test } from "bun:test";
import {
  endProcesses,
  familyOf,
  type Process,
  parseStat,
  scanProcesses,
} from "../../../src/runtime/local/processes.ts";
import { findInit } from "../../../src/runtime/local/sandbox.ts";
import { until } from "../../until.ts";

function process_(pid: number, parent: number, session = pid): Process {
  const unused = { name: "", group: pid, terminal: 0, foreground: -1, exiting: false, cpuMs: 0 };
  return { ...unused, residentBytes: 0, pid, parent, session, startTicks: pid };
}

test("a name with spaces and parentheses does not shift the fields", () => {
  const rest = `S 1 70 71 34816 -1 0 0 0 0 0 5 6 7 8 20 0 1 0 9999 4096 25 ${"0 ".repeat(20)}`;
  expect(parseStat(`42 (a) (b c) ${rest}`)).toEqual({
    pid: 42,
    name: "a) (b c",
    parent: 1,
    group: 70,
    session: 71,
    terminal: 34816,
    foreground: -1,
    exiting: false,
    startTicks: 9999,
    cpuMs: 260,
    residentBytes: 25 * 4096,
  });
  expect(parseStat("")).toBe(undefined);
  expect(parseStat("42 (cut")).toBe(undefined);
});

test.each([
  ["S", 4194560, 1, false],
  ["Z", 4227084, 1, true],
  ["S", 4194564, 1, true], // the first of a pid namespace, killed, until the others there are reaped
  ["Z", 4194564, 2, false], // the first thread has ended
])("in state %s with flags %d and %d threads a process is exiting: %p", (state, flags, threads, exiting) => {
  const stat = `42 (a) ${state} 1 70 71 0 -1 ${flags} 0 0 0 0 5 6 7 8 20 0 ${threads} 0 9999 4096 25`;
  expect(parseStat(stat)).toMatchObject({ exiting });
});

test("a family is its roots, their descendants and the sessions that they lead, and nobody else's", () => {
  const all = [
    process_(1, 0),
    process_(10, 1), // the server
    process_(20, 10), // a shell
    process_(21, 20, 20),
    process_(22, 1, 20), // an orphan of its session
    process_(23, 22, 23), // and its child with a session of its own
    process_(30, 10), // another shell
    process_(40, 10, 10),
  ];
  expect(familyOf(all, new Set([20])).map(({ pid }) => pid)).toEqual([20, 21, 22, 23]);
  expect(familyOf(all, new Set([40])).map(({ pid }) => pid)).toEqual([40]);
  expect(familyOf(all, new Set())).toEqual([]);
});

test("what ignores TERM and HUP is killed, with what it has started", async () => {
  const child = Bun.spawn(
    ["sh", "-c", "trap '' TERM HUP; (trap '' TERM HUP; echo up; while :; do sleep 0.05; done) & wait"],
    {
      stdout: "pipe",
    },
  );
  await child.stdout.getReader().read();
  const roots = new Set([child.pid]);
  const left = await endProcesses(async () => familyOf(await scanProcesses(), roots), { graceMs: 50 });
  expect(left).toBe(0);
  await child.exited;
  expect(child.signalCode).toBe("SIGKILL");
});

test.if(Boolean(Bun.which("unshare") && Bun.which("nsenter")))(
  "a process that is killed but held up in its end is not waited for",
  async () => {
    const made = Bun.spawn(["unshare", "-Urpf", "sleep", "1000"]);
    const init = await until(() => findInit(made.pid));
    const joined = Bun.spawn(["nsenter", `-t${init}`, "-U", "-p", "--preserve-credentials", "sleep", "1000"]);
    const inside = await until(() => findInit(joined.pid));
    // It does not reap its child now.
    joined.kill("SIGSTOP");
    const select = async () => (await scanProcesses()).filter(({ pid }) => pid === init || pid === inside);
    expect(await endProcesses(select, { graceMs: 0, limitMs: 2000 })).toBe(0);
    joined.kill("SIGKILL");
  },
);
