import { readFileSync } from "node:fs";
import { TERMINAL_LIMITS } from "../../../src/terminal/limits.ts";
import { startClient } from "./client.ts";
import { percentile, table } from "./figures.ts";
import type { Link } from "./links.ts";
import { startServer } from "./targets.ts";

const EVERY_MS = 100;
const BYTES = 4_000;
const CLOCK_TICKS_PER_S = 100;
/** By then the code of both sides is compiled. */
const WARM_UP_MS = 10_000;

function cpuSeconds(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]?.split(" ") ?? [];
  return (Number(fields[11]) + Number(fields[12])) / CLOCK_TICKS_PER_S;
}

function residentMb(pid: number): number {
  const kib = /VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1];
  return (Number(kib) * 1024) / 1e6;
}

/** Many terminals at 40 KB/s each way, with a client that reads and types: what they cost the server. */
export async function manyTerminals(terminals: number, forMs: number): Promise<string> {
  const server = await startServer();
  const perEnvironment = TERMINAL_LIMITS.sessionsPerEnvironment;
  const links: Link[] = [];
  const idleMb = residentMb(server.pid);
  for (let n = 0; n * perEnvironment < terminals; n++) {
    const { link } = await server.environment(`many-${n}`);
    for (let m = 0; m < perEnvironment && links.length < terminals; m++) links.push(link("binary"));
  }

  async function run(part: Link[], ms: number) {
    await using client = startClient({
      work: "many",
      links: part,
      bytes: BYTES,
      everyMs: EVERY_MS,
      warmUpMs: WARM_UP_MS,
      forMs: ms,
    });
    await client.next();
    const before = cpuSeconds(server.pid);
    const times = await client.next();
    return { times, cpu: cpuSeconds(server.pid) - before };
  }

  const one = await run(links.slice(0, 1), Math.min(forMs, 5000));
  const all = await run(links.slice(1), forMs);
  const busyMb = residentMb(server.pid);
  const scrollbackMb =
    (terminals * Math.min(TERMINAL_LIMITS.scrollbackBytes, (BYTES * (WARM_UP_MS + forMs)) / EVERY_MS)) / 1e6;
  await server.stop();
  const ms = (value: number) => `${value.toFixed(2)} ms`;
  const [p95One, p95All] = [percentile(one.times, 0.95), percentile(all.times, 0.95)];
  return table([
    [`${terminals} terminals, 40 KB/s each way, ${forMs / 1000} s after ${WARM_UP_MS / 1000} s`, "", "aim"],
    [
      "  the server's CPU",
      `${all.cpu.toFixed(1)} s, ${((all.cpu * 1000) / forMs).toFixed(2)} cores`,
      "1 core",
    ],
    [
      "  memory over the idle server and the scrollback",
      `${(busyMb - idleMb - scrollbackMb).toFixed(0)} MB (${busyMb.toFixed(0)} − ${idleMb.toFixed(0)} − ${scrollbackMb.toFixed(0)})`,
      "200 MB",
    ],
    ["  echo of 4 KB, p95, one terminal alone", ms(p95One), ""],
    ["  echo of 4 KB, p95, all", `${ms(p95All)}, ${ms(p95All - p95One)} more`, "20 ms"],
  ]);
}
