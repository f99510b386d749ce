/*
 * What the parts that every request goes through cost: `bun test/bench/http.ts [seconds per round]`.
 *
 * Each variant is a server process of its own, loaded over keep-alive connections from this one; rounds of
 * all variants alternate, and the median round counts. CPU time per request is what compares best on a busy
 * machine.
 */
import { readFileSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { createRoute, OpenAPIHono, z } from "@hono/zod-openapi";
import type { MiddlewareHandler } from "hono";
import { limitBody } from "../../src/http/body.ts";
import type { HttpEnv, SocketHandlers } from "../../src/http/context.ts";
import { cors } from "../../src/http/cors.ts";
import { answerError } from "../../src/http/errors.ts";
import { exchange } from "../../src/http/exchange.ts";
import { createHttp, type Fetch } from "../../src/http/http.ts";
import { rateLimit } from "../../src/http/ratelimit.ts";
import { json, newRouter } from "../../src/http/router.ts";
import { security } from "../../src/http/security.ts";
import { createLogger } from "../../src/lib/logger.ts";
import { actor } from "../http/server.ts";

const PATH = "/api/v1/things";
const REQUEST = `GET ${PATH} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer x\r\nUser-Agent: bench\r\n\r\n`;
const CONNECTIONS = 32;
const ROUNDS = 5;

const SMALL = { message: "It is there" };
const LARGE = Array.from({ length: 50 }, (_, i) => ({
  id: `0000000000000000000000${i + 10}`,
  name: `environment-${i}`,
  template_name: "Python 3.11",
  status: "running",
  resources: { cpu: "500m", memory: "1Gi", storage: "10Gi" },
  environment_variables: { PORT: "8080", NODE_ENV: "development" },
  created_at: "2024-01-01T00:00:00.000Z",
  updated_at: "2024-01-01T00:00:00.000Z",
  last_activity: null,
}));

const log = createLogger({ format: "json", level: "info" });
const silent = createLogger({ format: "json", level: "error" });
const limits = { generalPerMinute: 1_000_000, authPerMinute: 5 };
const ada = actor("ada");
const config = { publicUrl: undefined, trustedProxies: 0, corsOrigins: [], rateLimits: limits };

function app(payload: unknown, ...middleware: MiddlewareHandler<HttpEnv>[]): Fetch {
  const hono = new OpenAPIHono<HttpEnv>();
  for (const one of middleware) hono.use(one);
  hono.get(PATH, (c) => c.json(payload));
  return (request, server) => hono.fetch(request, { server });
}

function whole(payload: unknown, logger = log): Fetch {
  const router = newRouter();
  const route = createRoute({
    method: "get",
    path: PATH,
    request: { query: z.object({ status: z.string().optional() }) },
    responses: { 200: json(z.unknown(), "Anything") },
  });
  router.openapi(route, (c) => c.json(payload, 200));
  return createHttp({ config, version: "1", log: logger, identify: () => ada, routers: [router] });
}

const base = (logger: typeof log) =>
  exchange({ log: logger, trustedProxies: 0, onError: answerError(logger) });

const VARIANTS: Record<string, () => Fetch> = {
  "bare Bun.serve": () => () => Response.json(SMALL),
  Hono: () => app(SMALL),
  "Hono and origin, id": () => app(SMALL, base(silent)),
  "Hono and origin, id, log line": () => app(SMALL, base(log)),
  "the same and security headers": () => app(SMALL, base(log), security(config)),
  "the same and CORS": () => app(SMALL, base(log), security(config), cors(["http://a.example"]) ?? limitBody),
  "the same and rate limit": () =>
    app(
      SMALL,
      base(log),
      security(config),
      rateLimit(limits, () => ada),
    ),
  "all of createHttp": () => whole(SMALL),
  "bare Bun.serve, 50 environments": () => () => Response.json(LARGE),
  "all of createHttp, 50 environments": () => whole(LARGE),
};

interface Round {
  perSecond: number;
  cpuMicros: number;
}

if (process.argv[2] === "serve") serve(process.argv[3] ?? "");
else await compare(Number(process.argv[2] ?? 1.5));

function serve(name: string): void {
  const fetch = VARIANTS[name]?.();
  if (!fetch) throw new Error(`no variant ${name}`);
  const server = Bun.serve<SocketHandlers>({ port: 0, hostname: "127.0.0.1", fetch });
  console.log(server.port);
}

async function compare(seconds: number): Promise<void> {
  const rounds: Record<string, Round[]> = {};
  for (let round = 0; round < ROUNDS; round++) {
    for (const name of Object.keys(VARIANTS)) {
      rounds[name] = [...(rounds[name] ?? []), await measure(name, seconds)];
    }
  }
  const medians = Object.entries(rounds).map(([name, all]) => ({ name, ...median(all) }));
  const bare = { small: medians.at(0), large: medians.at(-2) };
  console.log(`${"".padEnd(36)} requests/s   CPU µs   throughput   CPU ratio`);
  for (const { name, perSecond, cpuMicros } of medians) {
    const reference = name.includes("50") ? bare.large : bare.small;
    const ratio = perSecond / (reference?.perSecond ?? 1);
    const cpuRatio = (reference?.cpuMicros ?? 1) / cpuMicros;
    console.log(
      name.padEnd(36),
      perSecond.toFixed(0).padStart(10),
      cpuMicros.toFixed(1).padStart(8),
      ratio.toFixed(2).padStart(12),
      cpuRatio.toFixed(2).padStart(11),
    );
  }
}

async function measure(name: string, seconds: number): Promise<Round> {
  const server = Bun.spawn([process.execPath, import.meta.path, "serve", name], {
    stdout: "pipe",
    stderr: "ignore",
  });
  try {
    const port = Number(await firstLine(server.stdout));
    await load(port, 0.5);
    const before = cpuSeconds(server.pid);
    const answered = await load(port, seconds);
    const cpu = cpuSeconds(server.pid) - before;
    return { perSecond: answered / seconds, cpuMicros: (cpu / answered) * 1e6 };
  } finally {
    server.kill();
    await server.exited;
  }
}

/** How many requests were answered in `seconds`, one at a time on each connection. */
async function load(port: number, seconds: number): Promise<number> {
  const length = await answerLength(port);
  let answered = 0;
  const sockets = Array.from({ length: CONNECTIONS }, () => {
    let left = length;
    const socket: Socket = connect(port, "127.0.0.1", () => socket.write(REQUEST));
    socket.on("data", (chunk) => {
      left -= chunk.length;
      if (left > 0) return;
      answered += 1;
      left = length;
      socket.write(REQUEST);
    });
    return socket;
  });
  await Bun.sleep(seconds * 1000);
  const total = answered;
  for (const socket of sockets) socket.destroy();
  return total;
}

/** All answers have the same length: generated ids and numbers of a limit have so, too. */
function answerLength(port: number): Promise<number> {
  return new Promise((resolve) => {
    let text = "";
    const socket = connect(port, "127.0.0.1", () => socket.write(REQUEST));
    socket.on("data", (chunk) => {
      text += chunk.toString("latin1");
      const body = text.indexOf("\r\n\r\n") + 4;
      const length = body + Number(/content-length: (\d+)/i.exec(text)?.[1]);
      if (body > 3 && text.length >= length) {
        socket.destroy();
        resolve(length);
      }
    });
  });
}

/** User and system time of a process so far (proc(5), in ticks of 10 ms). */
function cpuSeconds(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]?.split(" ") ?? [];
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

async function firstLine(stream: ReadableStream<Uint8Array>): Promise<string> {
  let text = "";
  for await (const chunk of stream) {
    text += new TextDecoder().decode(chunk);
    if (text.includes("\n")) break;
  }
  return text;
}

function median(rounds: Round[]): Round {
  const middle = (key: keyof Round) =>
    rounds.map((round) => round[key]).toSorted((a, b) => a - b)[Math.floor(rounds.length / 2)] ?? Number.NaN;
  return { perSecond: middle("perSecond"), cpuMicros: middle("cpuMicros") };
}
