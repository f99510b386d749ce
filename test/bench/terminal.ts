/*
 * bun run bench:terminal: what our way from a PTY to a WebSocket client costs, side by side with reading the
 * PTY alone. The client is a process of its own; each figure is the median of alternating runs.
 */

import { serveTerminals } from "../sockets/terminal-server.ts";
import { spawnPty } from "../terminal/ptys.ts";

const MEGABYTES = Number(process.env.BENCH_MB ?? 200);
const RUNS = 3;
const KEYS = 1000;
const FLOOD = `stty raw -echo; read go; head -c ${MEGABYTES}000000 /dev/zero | tr '\\0' 'x'; sleep 1000`;
const FLOODED_BYTES = MEGABYTES * 1_000_000;

type Protocol = "JSON" | "binary";

function connect(url: string, protocol: Protocol): WebSocket {
  const socket = new WebSocket(url, { protocols: protocol === "binary" ? ["devpocket.v1.binary"] : [] });
  socket.binaryType = "arraybuffer";
  return socket;
}

function typeInto(socket: WebSocket, protocol: Protocol, text: string): void {
  socket.send(protocol === "binary" ? Buffer.from(text) : JSON.stringify({ type: "input", data: text }));
}

/** The client's side of a run, in its own process: prints its figures as JSON. */
async function client(work: string, protocol: Protocol, url: string): Promise<void> {
  const socket = connect(url, protocol);
  const { promise: welcomed, resolve: welcome } = Promise.withResolvers<void>();
  let bytes = 0;
  let came = () => {};
  socket.onmessage = ({ data }) => {
    if (typeof data !== "string") {
      bytes += data.byteLength;
      socket.send(JSON.stringify({ type: "ack", offset: bytes }));
    } else {
      const message = JSON.parse(data);
      if (message.type === "welcome") welcome();
      if (message.type !== "output") return;
      bytes = message.next_offset;
    }
    came();
  };
  await welcomed;
  console.log(JSON.stringify(await (work === "flood" ? flood() : echo())));
  process.exit();

  async function flood(): Promise<number[]> {
    await Bun.sleep(300);
    const { promise, resolve } = Promise.withResolvers<void>();
    came = () => bytes >= FLOODED_BYTES && resolve();
    const began = performance.now();
    typeInto(socket, protocol, "\n");
    await promise;
    return [performance.now() - began];
  }

  async function echo(): Promise<number[]> {
    await Bun.sleep(300);
    const times: number[] = [];
    for (let n = 0; n < KEYS; n++) {
      const { promise, resolve } = Promise.withResolvers<void>();
      came = resolve;
      const began = performance.now();
      typeInto(socket, protocol, "k");
      await promise;
      times.push(performance.now() - began);
    }
    return times;
  }
}

async function runClient(work: string, protocol: Protocol, url: string): Promise<number[]> {
  const child = Bun.spawn([process.execPath, import.meta.path, work, protocol, url], { stdout: "pipe" });
  return JSON.parse(await child.stdout.text());
}

async function rawFlood(): Promise<number> {
  const { promise, resolve } = Promise.withResolvers<void>();
  let bytes = 0;
  const pty = await spawnPty(
    {
      size: { cols: 80, rows: 24 },
      onData: (data) => {
        bytes += data.length;
        if (bytes >= FLOODED_BYTES) resolve();
      },
      onExit: () => {},
      onDrain: () => {},
    },
    ["sh", "-c", FLOOD],
  );
  await Bun.sleep(300);
  const began = performance.now();
  pty.write(Buffer.from("\n"));
  await promise;
  const took = performance.now() - began;
  pty.kill();
  return took;
}

async function rawEcho(): Promise<number[]> {
  let came = () => {};
  const pty = await spawnPty(
    { size: { cols: 80, rows: 24 }, onData: () => came(), onExit: () => {}, onDrain: () => {} },
    ["sh", "-c", "stty raw -echo; exec cat"],
  );
  await Bun.sleep(300);
  const times: number[] = [];
  for (let n = 0; n < KEYS; n++) {
    const { promise, resolve } = Promise.withResolvers<void>();
    came = resolve;
    const began = performance.now();
    pty.write(Buffer.from("k"));
    await promise;
    times.push(performance.now() - began);
  }
  pty.kill();
  return times;
}

async function ourFlood(protocol: Protocol): Promise<number> {
  await using server = serveTerminals({ command: ["sh", "-c", FLOOD], messagesPerMinute: 0 });
  const [took = Number.NaN] = await runClient("flood", protocol, server.url());
  return took;
}

async function ourEcho(protocol: Protocol, besideFlood: boolean): Promise<number[]> {
  let opened = 0;
  await using server = serveTerminals({
    open: (_id, options) =>
      spawnPty(options, [
        "sh",
        "-c",
        besideFlood && opened++ === 0 ? "exec yes" : "stty raw -echo; exec cat",
      ]),
    messagesPerMinute: 0,
  });
  if (besideFlood) {
    const flooding = connect(server.url(), "JSON");
    await new Promise((resolve) => flooding.addEventListener("message", resolve, { once: true }));
    flooding.terminate();
  }
  return await runClient("echo", protocol, server.url());
}

function percentile(values: number[], part: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? Number.NaN;
}

async function main(): Promise<void> {
  const floods: Record<string, number[]> = { "raw PTY": [], JSON: [], binary: [] };
  for (let run = 0; run < RUNS; run++) {
    floods["raw PTY"]?.push(await rawFlood());
    floods.JSON?.push(await ourFlood("JSON"));
    floods.binary?.push(await ourFlood("binary"));
  }
  const rate = (name: string) => FLOODED_BYTES / 1000 / percentile(floods[name] ?? [], 0.5);
  console.log(`${MEGABYTES} MB to one client, median of ${RUNS}`);
  for (const name of Object.keys(floods)) {
    console.log(
      `  ${name.padEnd(24)}${rate(name).toFixed(1)} MB/s  ${(rate(name) / rate("raw PTY")).toFixed(2)} of raw`,
    );
  }
  console.log(`echo of ${KEYS} keystrokes`);
  const echoes: [string, () => Promise<number[]>][] = [
    ["raw PTY", rawEcho],
    ["JSON", () => ourEcho("JSON", false)],
    ["binary", () => ourEcho("binary", false)],
    ["JSON beside a flood", () => ourEcho("JSON", true)],
    ["binary beside a flood", () => ourEcho("binary", true)],
  ];
  for (const [name, measure] of echoes) {
    const times = await measure();
    const [p50, p99] = [percentile(times, 0.5), percentile(times, 0.99)].map((ms) => ms.toFixed(2));
    console.log(`  ${name.padEnd(24)}p50 ${p50} ms  p99 ${p99} ms`);
  }
}

const [work, protocol, url] = process.argv.slice(2);
if (work !== undefined && url !== undefined)
  await client(work, protocol === "binary" ? "binary" : "JSON", url);
else await main();
process.exit();
