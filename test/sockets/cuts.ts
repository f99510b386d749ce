import { expect } from "bun:test";
import { until } from "../until.ts";
import { type Cut, cuttingProxy } from "./cutting-proxy.ts";
import { ResumingClient } from "./resuming-client.ts";
import { serveTerminals } from "./terminal-server.ts";

/** Reads a stream of "0\n1\n2\n…" and fails at the first number that is missing or comes twice. */
export class CountedStream {
  next = 0;
  #rest = "";

  push(bytes: Uint8Array): void {
    const lines = (this.#rest + Buffer.from(bytes).toString("latin1")).split("\n");
    this.#rest = lines.pop() ?? "";
    for (const line of lines) {
      if (line.trim() !== String(this.next)) throw new Error(`${line} came, not ${this.next}`);
      this.next += 1;
    }
  }
}

/** Deterministic: a failing run can be repeated. */
export function randomNumbers(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

interface CutsOptions {
  cuts: number;
  binary: boolean;
  seed?: number;
}

/** A connection that is cut somewhere each time: in the handshake, in a frame, on either side. */
function cutSomewhere(random: () => number): Cut {
  const after = Math.floor(random() ** 3 * 60_000) + 1;
  return random() < 0.7 ? { down: after, up: null } : { down: null, up: 300 + Math.floor(after / 20) };
}

function urlThrough(port: number, server: { url: (query: Record<string, string | number>) => string }) {
  return (query: Record<string, string | number>) => server.url(query).replace(/:\d+\//, `:${port}/`);
}

/** A terminal that counts is cut off again and again; its client must see every number once. */
export async function cutOutput({ cuts, binary, seed = 1 }: CutsOptions): Promise<void> {
  const random = randomNumbers(seed);
  const program = "stty -onlcr; n=0; while :; do echo $n; n=$((n+1)); done";
  await using server = serveTerminals({ command: ["bash", "--norc", "-c", program] });
  using proxy = await cuttingProxy(server.port ?? 0, () => cutSomewhere(random));
  const stream = new CountedStream();
  const client = new ResumingClient(urlThrough(proxy.port, server), {
    binary,
    onOutput: (bytes) => {
      stream.push(bytes);
      const dice = random();
      if (dice < 0.002) client.cut();
      else if (dice < 0.004) server.connections.closeSession("session-of-ada");
    },
  });
  await until(() => client.connects > cuts, { timeoutMs: 590_000 });
  const seen = stream.next;
  await until(() => stream.next > seen);
  client.close();
  expect({ gaps: client.gaps, losses: client.losses }).toEqual({ gaps: 0, losses: 0 });
}

/** What is typed over a connection that is cut again and again must reach the program once and in order. */
export async function cutInput({ cuts, binary, seed = 2 }: CutsOptions): Promise<void> {
  const random = randomNumbers(seed);
  await using server = serveTerminals({
    command: ["bash", "--norc", "-c", "stty raw -echo; echo; exec cat"],
    messagesPerMinute: 0,
  });
  using proxy = await cuttingProxy(server.port ?? 0, () => cutSomewhere(random));
  const stream = new CountedStream();
  let isReady = false;
  const client = new ResumingClient(urlThrough(proxy.port, server), {
    binary,
    onOutput: (bytes) => {
      // The first line says that the terminal echoes no more.
      const start = isReady ? 0 : bytes.indexOf(0x0a) + 1;
      isReady ||= start > 0;
      if (isReady) stream.push(bytes.subarray(start));
    },
  });
  await until(() => isReady);
  let typed = 0;
  while (client.connects <= cuts) {
    if (client.unacknowledged < 200) {
      const lines = Array.from({ length: 1 + Math.floor(random() * 50) }, () => `${typed++}\n`);
      client.type(Buffer.from(lines.join("")));
    }
    const dice = random();
    if (dice < 0.002) client.cut();
    else if (dice < 0.004) server.connections.closeSession("session-of-ada");
    await Bun.sleep(0);
  }
  await until(() => stream.next === typed, { timeoutMs: 60_000 });
  client.close();
  expect({ gaps: client.gaps, losses: client.losses }).toEqual({ gaps: 0, losses: 0 });
}
