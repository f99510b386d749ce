/*
 * 200 environments at once on the local runtime: how long until all run, and what becomes of the server's
 * memory and of the API's answers meanwhile: `bun test/bench/burst.ts [environments]`.
 *
 * The compiled server is asked from this process. Answers are timed by a client that reads one environment
 * and the list of them in turn, every 20 ms.
 */
import { loadavg } from "node:os";
import { allBecome, createMany, deleteMany } from "../e2e/many.ts";
import { type TestClient, TestServer } from "../harness.ts";
import { buildServer, cpuSeconds, inTemporaryFolder, memoryMiB, quantile } from "./measure.ts";

const COUNT = Number(process.argv[2] ?? 200);
const IDLE_MS = 3000;
const ASK_EVERY_MS = 20;

await inTemporaryFolder(async (folder) => {
  const server = await TestServer.start({ command: [await buildServer(folder)] });
  try {
    await burst(server, await server.signedIn());
  } finally {
    await server.stop();
  }
});

async function burst(server: TestServer, admin: TestClient): Promise<void> {
  const first = await admin.environment({ name: "first", template: "shell" });
  const phase = async (name: string, work: () => Promise<void>) => {
    const clock = startClock(admin, String(first.id));
    const cpu = cpuSeconds(server.pid);
    const began = performance.now();
    await work();
    const seconds = (performance.now() - began) / 1000;
    print(name, seconds, cpuSeconds(server.pid) - cpu, memoryMiB(server.pid), await clock.stop());
  };

  console.log(`${COUNT} environments at once; load at the beginning ${loadavg()[0]?.toFixed(1)}`);
  console.log(`${"".padEnd(26)} seconds  CPU s  RSS MiB  most   one: p50    p99  list: p50    p99 ms`);
  let ids: string[] = [];
  await phase("one running, idle", () => Bun.sleep(IDLE_MS));
  await phase("created until all run", async () => {
    ids = await createMany(admin, COUNT);
    await allBecome(admin, "running", Math.min(COUNT + 1, 200));
  });
  await phase("all running, idle", () => Bun.sleep(IDLE_MS));
  await phase("deleted until all is gone", () => deleteMany(admin, server, ids));
  await phase("one running, idle", () => Bun.sleep(IDLE_MS));
}

interface Answers {
  one: number[];
  list: number[];
}

/** Asks until it is stopped; gives the milliseconds that the answers took. */
function startClock(client: TestClient, id: string): { stop(): Promise<Answers> } {
  const answers: Answers = { one: [], list: [] };
  let stopped = false;
  const ask = async (path: string) => {
    const began = performance.now();
    const response = await client.raw("GET", path);
    await response.arrayBuffer();
    if (response.status !== 200) throw new Error(`GET ${path}: ${response.status}`);
    return performance.now() - began;
  };
  const done = (async () => {
    while (!stopped) {
      answers.one.push(await ask(`/api/v1/environments/${id}`));
      answers.list.push(await ask("/api/v1/environments"));
      await Bun.sleep(ASK_EVERY_MS);
    }
  })();
  return {
    async stop() {
      stopped = true;
      await done;
      return answers;
    },
  };
}

function print(
  name: string,
  seconds: number,
  cpu: number,
  memory: { now: number; most: number },
  { one, list }: Answers,
): void {
  const p = (values: number[], share: number) => quantile(values, share).toFixed(1).padStart(6);
  console.log(
    name.padEnd(26),
    seconds.toFixed(1).padStart(7),
    cpu.toFixed(2).padStart(6),
    memory.now.toFixed(0).padStart(8),
    memory.most.toFixed(0).padStart(5),
    `     ${p(one, 0.5)} ${p(one, 0.99)}      ${p(list, 0.5)} ${p(list, 0.99)}`,
  );
}
