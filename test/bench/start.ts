/*
 * How long the compiled server takes from its process's start to its first answer, beside a bare
 * `Bun.serve` compiled the same way: `bun test/bench/start.ts [starts of each]`.
 *
 * Both are built, then started in turn; the median counts. The first answer is that of `GET /health`, asked
 * for on a new connection every millisecond until one is taken.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { connect } from "node:net";
import { loadavg, tmpdir } from "node:os";
import { join } from "node:path";

const ROOT = join(import.meta.dir, "..", "..");
const STARTS = Number(process.argv[2] ?? 10);
const GIVE_UP_MS = 10_000;
const REQUEST = "GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

const BARE = `Bun.serve({ hostname: "127.0.0.1", port: Number(Bun.env.PORT), fetch: () => Response.json({ status: "healthy" }) });`;

const folder = mkdtempSync(join(tmpdir(), "devpocket-start-"));
try {
  await compare();
} finally {
  rmSync(folder, { recursive: true });
}

async function compare(): Promise<void> {
  const bare = join(folder, "bare");
  const devpocket = join(folder, "devpocket");
  await Bun.write(`${bare}.ts`, BARE);
  await Bun.$`bun build --compile --minify --bytecode --format=esm ${bare}.ts --outfile ${bare}`
    .cwd(ROOT)
    .quiet();
  await Bun.$`bun run build --outfile ${devpocket}`.cwd(ROOT).quiet();

  const used = { DATA_DIR: join(folder, "used"), ADMIN_PASSWORD: "correct horse battery" };
  const variants: Record<string, () => Promise<number>> = {
    "bare Bun.serve": () => firstAnswerMs(bare, {}),
    devpocket: () => firstAnswerMs(devpocket, used),
    "devpocket, its first start ever": () =>
      firstAnswerMs(devpocket, { ...used, DATA_DIR: mkdtempSync(join(folder, "new-")) }),
  };
  // One round beforehand: the binaries come from the disk, and the used folder is made.
  for (const measure of Object.values(variants)) await measure();
  const times: Record<string, number[]> = Object.fromEntries(Object.keys(variants).map((name) => [name, []]));
  for (let i = 0; i < STARTS; i++) {
    for (const [name, measure] of Object.entries(variants)) times[name]?.push(await measure());
  }

  console.log(
    `first answer in ms after the process's start, ${STARTS} starts each; load ${loadavg()[0]?.toFixed(1)}`,
  );
  const reference = median(times["bare Bun.serve"] ?? []);
  for (const [name, all] of Object.entries(times)) {
    const ratio = median(all) / reference;
    console.log(
      name.padEnd(34),
      `median ${median(all).toFixed(1).padStart(6)}`,
      `  min ${Math.min(...all)
        .toFixed(1)
        .padStart(6)}`,
      `  max ${Math.max(...all)
        .toFixed(1)
        .padStart(6)}`,
      `  ratio ${ratio.toFixed(1).padStart(5)}`,
    );
  }
}

async function firstAnswerMs(binary: string, environment: Record<string, string>): Promise<number> {
  const port = freePort();
  const began = performance.now();
  const server = Bun.spawn([binary], {
    cwd: folder,
    env: { PATH: Bun.env.PATH ?? "", PORT: String(port), ...environment },
    stdout: "ignore",
    stderr: "ignore",
  });
  try {
    for (;;) {
      if (await answered(port)) return performance.now() - began;
      if (server.exitCode !== null || performance.now() - began > GIVE_UP_MS) {
        throw new Error(`${binary} does not answer (exit code ${server.exitCode})`);
      }
      await Bun.sleep(1);
    }
  } finally {
    server.kill();
    await server.exited;
  }
}

/** Whether something listens on the port and answers 200; false at once when nothing listens. */
function answered(port: number): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, "127.0.0.1", () => socket.write(REQUEST));
    socket.on("error", () => resolve(false));
    socket.once("data", (chunk) => {
      socket.destroy();
      if (chunk.toString("latin1").startsWith("HTTP/1.1 200")) resolve(true);
      else reject(new Error(`not healthy: ${chunk.toString("latin1")}`));
    });
  });
}

function freePort(): number {
  const server = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
  const { port } = server;
  server.stop(true);
  return port;
}

function median(values: number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  const upper = sorted[middle] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? Number.NaN) + upper) / 2;
}
