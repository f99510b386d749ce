import type { TerminalJobs } from "../runtime.ts";
import { familyOf, type Process, scanProcesses } from "./processes.ts";

/** What leads a terminal session in a sandbox; its shell is the child. */
const WRAPPERS = new Set(["nsenter", "bwrap"]);

/** What runs in the terminal session that `leader` leads, besides its shell; null when that is gone. */
export async function jobsOf(leader: number): Promise<TerminalJobs | null> {
  const family = familyOf(await scanProcesses(), new Set([leader])).filter(({ exiting }) => !exiting);
  const shell = shellOf(family, leader);
  if (!shell) return null;
  const others = family.filter(({ pid }) => pid !== leader && pid !== shell.pid);
  const inFront =
    shell.foreground === shell.group ? [] : others.filter(({ group }) => group === shell.foreground);
  const first = inFront.find(({ pid, group }) => pid === group) ?? inFront[0];
  return { foreground: first?.name ?? null, count: others.length };
}

function shellOf(family: Process[], leader: number): Process | undefined {
  const first = family.find(({ pid }) => pid === leader);
  return first && WRAPPERS.has(first.name) ? family.find(({ parent }) => parent === leader) : first;
}
