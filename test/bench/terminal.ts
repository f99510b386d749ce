/*
 * bun run bench:terminal [--quick]: what our way from a PTY to a WebSocket client costs, side by side with
 * reading the PTY alone, with ttyd (on the PATH, or BENCH_TTYD) and, where KUBECONFIG names a cluster, with
 * its exec socket and kubectl. The server and the measuring client are processes of their own; what is
 * compared is measured in turn (echoes: one client types into all by turns), and the ratios are medians of those
 * within a round.
 */

import { loadavg } from "node:os";
import { parseArgs } from "node:util";
import { measure, startClient } from "./terminal/client.ts";
import { startOnCluster } from "./terminal/cluster.ts";
import { median, medianRatio, percentile, table } from "./terminal/figures.ts";
import type { Link } from "./terminal/links.ts";
import { manyTerminals } from "./terminal/many.ts";
import { startServer, startTtyd } from "./terminal/targets.ts";

const { quick } = parseArgs({ options: { quick: { type: "boolean", default: false } } }).values;
const MEGABYTES = quick ? 50 : 200;
const ROUNDS = quick ? 1 : 5;
const KEYS = quick ? 200 : 1000;

type Contestants = Map<string, Link>;

/** Figures of each contestant, one for each round. */
async function inTurn<T>(
  contestants: Contestants,
  rounds: number,
  measureOne: (link: Link) => Promise<T>,
): Promise<Map<string, T[]>> {
  const results = new Map<string, T[]>([...contestants.keys()].map((name) => [name, []]));
  for (let round = 0; round < rounds; round++) {
    for (const [name, link] of contestants) results.get(name)?.push(await measureOne(link));
  }
  return results;
}

/** The first contestant is what the others are compared with. */
async function throughput(title: string, contestants: Contestants, rounds = ROUNDS): Promise<string> {
  const bytes = MEGABYTES * 1_000_000;
  const rates = await inTurn(contestants, rounds, async (link) => {
    const [took = Number.NaN] = await measure({ work: "flood", link, bytes });
    return bytes / 1000 / took;
  });
  const [base = []] = rates.values();
  return table([
    [`${MEGABYTES} MB to one client, ${title}`, "MB/s", "ratio"],
    ...[...rates].map(([name, values]) => [
      `  ${name}`,
      median(values).toFixed(1),
      medianRatio(values, base).toFixed(2),
    ]),
  ]);
}

async function echo(title: string, contestants: Contestants, rounds = ROUNDS): Promise<string> {
  await using client = startClient({ work: "echo", links: [...contestants.values()], keys: KEYS, rounds });
  const figures = await inTurn(contestants, rounds, () => client.next());
  return echoTable(title, figures);
}

/** @param endFloods ends what still runs when its client has gone */
async function echoBesideFlood(contestants: Contestants, endFloods: () => Promise<void>): Promise<string> {
  const figures = await inTurn(contestants, ROUNDS, async (link) => {
    await using flooding = startClient({ work: "drain", link });
    await flooding.next();
    const times = await measure({ work: "echo", links: [link], keys: KEYS, rounds: 1 });
    await flooding.stop();
    await endFloods();
    return times;
  });
  return echoTable("beside a flooding session that is read", figures);
}

/** Ratios are to the first contestant, and to ttyd where it is one. */
function echoTable(title: string, figures: Map<string, number[][]>): string {
  const [base = []] = figures.values();
  const bases = [...new Set([base, figures.get("ttyd") ?? base])];
  const at = (part: number, values: number[][]) => values.map((times) => percentile(times, part));
  const ratios = bases.map((_, n) => (n === 0 ? "ratio" : "to ttyd"));
  return table([
    [`echo of ${KEYS} keystrokes, ${title}`, "p50 ms", ...ratios, "p99 ms", ...ratios],
    ...[...figures].map(([name, values]) => [
      `  ${name}`,
      ...[0.5, 0.99].flatMap((part) => [
        median(at(part, values)).toFixed(3),
        ...bases.map((other) => medianRatio(at(part, values), at(part, other)).toFixed(2)),
      ]),
    ]),
  ]);
}

async function onThisMachine(): Promise<void> {
  const ttyd = await startTtyd();
  const server = await startServer();
  const { link, endTerminals } = await server.environment("bench");
  const contestants: Contestants = new Map<string, Link>([
    ["raw PTY", { kind: "pty" }],
    ["DevPocket, JSON", link("json")],
    ["DevPocket, binary", link("binary")],
    ...(ttyd ? ([["ttyd", ttyd.link]] as const) : []),
  ]);
  if (!ttyd) say("ttyd is not installed: it is left out\n");
  say(await throughput("this machine", contestants));
  say(await echo("idle", contestants));
  say(await echoBesideFlood(contestants, endTerminals));
  const times = await measure({ work: "interrupt", url: link("binary").url, times: ROUNDS });
  say(
    table([
      ["Ctrl-C under yes until the prompt is shown, a client that reads 1 MB/s", ""],
      ["  median", `${median(times).toFixed(0)} ms`],
      ["  longest", `${Math.max(...times).toFixed(0)} ms`],
    ]),
  );
  ttyd?.stop();
  await server.stop();
}

async function onTheCluster(kubeconfigFile: string): Promise<void> {
  const cluster = await startOnCluster(kubeconfigFile);
  const contestants: Contestants = new Map([
    ["raw exec socket", cluster.exec],
    ["DevPocket, JSON", cluster.ours("json")],
    ["DevPocket, binary", cluster.ours("binary")],
    ["kubectl exec", cluster.kubectl],
  ]);
  try {
    const rounds = Math.min(ROUNDS, 3);
    say(await throughput("a pod", contestants, rounds));
    say(await echo("a pod", contestants, rounds));
  } finally {
    await cluster.stop();
  }
}

function say(text: string): void {
  const [load = 0] = loadavg();
  console.log(
    `${text}\n  (load of the machine: ${load.toFixed(1)} on ${navigator.hardwareConcurrency} cores)\n`,
  );
}

await onThisMachine();
say(await manyTerminals(quick ? 32 : 500, quick ? 5_000 : 60_000));
if (process.env.KUBECONFIG) await onTheCluster(process.env.KUBECONFIG);
else console.log("KUBECONFIG is not set: the cluster is left out");
process.exit();
