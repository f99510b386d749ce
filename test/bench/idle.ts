/*
 * What a server costs that nobody uses, with none and with 50 running environments: CPU time of its process
 * and of the children that it has waited for, and its memory: `bun test/bench/idle.ts [seconds]`.
 */
import { readFileSync } from "node:fs";
import { loadavg } from "node:os";
import { allBecome, createMany } from "../e2e/many.ts";
import { TestServer } from "../harness.ts";
import { buildServer, inTemporaryFolder, memoryMiB } from "./measure.ts";

const SECONDS = Number(process.argv[2] ?? 60);
/** After a start or a burst: compilers and collectors come to rest. */
const SETTLE_MS = 5000;

await inTemporaryFolder(async (folder) => {
  const server = await TestServer.start({ command: [await buildServer(folder)] });
  try {
    const admin = await server.signedIn();
    console.log(`idle for ${SECONDS} s; load at the beginning ${loadavg()[0]?.toFixed(1)}`);
    await idle(server, "no environment");
    await createMany(admin, 50);
    await allBecome(admin, "running", 50);
    await idle(server, "50 running");
  } finally {
    await server.stop();
  }
});

async function idle(server: TestServer, name: string): Promise<void> {
  await Bun.sleep(SETTLE_MS);
  const before = cpuMs(server.pid);
  await Bun.sleep(SECONDS * 1000);
  const after = cpuMs(server.pid);
  const own = after.own - before.own;
  console.log(
    name.padEnd(16),
    `${own.toFixed(0).padStart(6)} ms of CPU (${(own / SECONDS / 10).toFixed(2)} %)`,
    `${(after.children - before.children).toFixed(0).padStart(6)} ms in children`,
    `${memoryMiB(server.pid).now.toFixed(0).padStart(5)} MiB`,
    `${after.wakeups - before.wakeups} wake-ups`,
  );
}

/** proc(5): times in ticks of 10 ms; a voluntary switch is a wait that will end with a wake-up. */
function cpuMs(pid: number): { own: number; children: number; wakeups: number } {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]?.split(" ") ?? [];
  const ticks = (from: number) => (Number(fields[from]) + Number(fields[from + 1])) * 10;
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  const wakeups = Number(/^voluntary_ctxt_switches:\s+(\d+)$/m.exec(status)?.[1]);
  return { own: ticks(11), children: ticks(13), wakeups };
}
