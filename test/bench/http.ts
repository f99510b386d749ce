/*
 * What a request costs, and what each part that it goes through adds: `bun test/bench/http.ts [seconds per round]`.
 *
 * Each variant is a server process of its own, loaded over keep-alive connections from this one; rounds of
 * all variants alternate, and the median round counts. CPU time per request is what compares best on a busy
 * machine. The lists are of 50 environments that were really created; the token is a real one, limits are on
 * (and not reached), and the log is written, to /dev/null.
 */
import { connect, type Socket } from "node:net";
import { loadavg } from "node:os";
import { join } from "node:path";
import { createRoute, OpenAPIHono, z } from "@hono/zod-openapi";
import type { MiddlewareHandler } from "hono";
import { createGuard, type Guard } from "../../src/auth/guard.ts";
import { createSessions } from "../../src/auth/sessions.ts";
import { createTokens } from "../../src/auth/tokens.ts";
import { loadConfig } from "../../src/config/config.ts";
import { openData } from "../../src/data.ts";
import { environmentRows } from "../../src/environments/rows.ts";
import { environmentObject } from "../../src/environments/schemas.ts";
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
import { allBecome, createMany } from "../e2e/many.ts";
import { TestServer } from "../harness.ts";
import { cpuSeconds, inTemporaryFolder, quantile } from "./measure.ts";

const CONNECTIONS = 32;
const ROUNDS = 5;
/** Until the code that every request runs is compiled. */
const WARM_UP_SECONDS = 2.5;
const ENVIRONMENTS = 50;
const SMALL_PATH = "/api/v1/things";
const LIST_PATH = "/api/v1/environments";
const SMALL = { message: "It is there" };
/** The highest there is: not reached, and what is left of it keeps its six digits. */
const LIMIT = 1_000_000;

/** What the variants are made of. */
interface Parts {
  guard: Guard;
  userId: string;
  rows: ReturnType<typeof environmentRows>;
  /** The statement of the list, without Drizzle. */
  plainList(): unknown[];
}

const log = createLogger({ format: "json", level: "info" });
const silent = createLogger({ format: "json", level: "error" });
const limits = { generalPerMinute: LIMIT, authPerMinute: 5 };
const config = { publicUrl: undefined, trustedProxies: 0, corsOrigins: [], rateLimits: limits };

const base = (logger: typeof log) =>
  exchange({ log: logger, trustedProxies: 0, onError: answerError(logger) });

function app(...middleware: MiddlewareHandler<HttpEnv>[]): Fetch {
  const hono = new OpenAPIHono<HttpEnv>();
  for (const one of middleware) hono.use(one);
  hono.get(SMALL_PATH, (c) => c.json(SMALL));
  return (request, server) => hono.fetch(request, { server });
}

function whole({ guard }: Parts): Fetch {
  const router = newRouter();
  const route = createRoute({
    method: "get",
    path: SMALL_PATH,
    middleware: guard.requireActor,
    request: { query: z.object({ status: z.string().optional() }) },
    responses: { 200: json(z.unknown(), "Anything") },
  });
  router.openapi(route, (c) => c.json(SMALL, 200));
  return createHttp({
    config,
    version: "1",
    log,
    identify: guard.identify,
    routers: [router],
    isStarted: () => true,
  });
}

const SMALL_VARIANTS: Record<string, (parts: Parts) => Fetch> = {
  "bare Bun.serve": () => () => Response.json(SMALL),
  Hono: () => app(),
  "+ origin, request id": () => app(base(silent)),
  "+ log line": () => app(base(log)),
  "+ security headers": () => app(base(log), security(config)),
  "+ CORS": () => app(base(log), security(config), cors(["http://a.example"]) ?? limitBody),
  "+ rate limit, token": ({ guard }) => app(base(log), security(config), rateLimit(limits, guard.identify)),
  "all of createHttp, query validated": whole,
};

const list = ({ rows, userId }: Parts) => rows.living(userId, { limit: 50, offset: 0 }).rows;

const LIST_VARIANTS: Record<string, (parts: Parts) => Fetch> = {
  "bare Bun.serve, the same read and JSON": (parts) => () =>
    Response.json(list(parts).map(environmentObject)),
  "bare Bun.serve, without Drizzle": (parts) => () => Response.json(parts.plainList()),
};
const SERVER = "the server";

interface Round {
  perSecond: number;
  cpuMicros: number;
}

if (process.argv[2] === "serve") serve(process.argv[3] ?? "", process.argv[4] ?? "", process.argv[5] ?? "");
else await inTemporaryFolder((folder) => compare(folder, Number(process.argv[2] ?? 1.5)));

function serve(name: string, dataDir: string, userId: string): void {
  const make = SMALL_VARIANTS[name] ?? LIST_VARIANTS[name];
  if (!make) throw new Error(`no variant ${name}`);
  const { db, sqlite, jwtSecret } = openData(loadConfig({ DATA_DIR: dataDir }));
  const sessions = createSessions({ db, now: Date.now, onSessionEnded() {} });
  const statement = sqlite.query(
    "SELECT * FROM environments WHERE user_id = ? AND status <> 'terminated' ORDER BY id DESC LIMIT 50",
  );
  const fetch = make({
    guard: createGuard({ tokens: createTokens({ secret: jwtSecret, now: Date.now }), sessions }),
    userId,
    rows: environmentRows(db),
    plainList: () => statement.all(userId),
  });
  const server = Bun.serve<SocketHandlers>({ port: 0, hostname: "127.0.0.1", fetch });
  console.log(`listens on ${server.url.origin}`);
}

async function compare(dataDir: string, seconds: number): Promise<void> {
  const { token, userId } = await prepare(dataDir);
  const variant = (name: string) => [process.execPath, import.meta.path, "serve", name, dataDir, userId];
  const server = [process.execPath, join(import.meta.dir, "../../src/main.ts")];
  const env = {
    PATH: Bun.env.PATH ?? "",
    DATA_DIR: dataDir,
    PORT: "0",
    RATE_LIMIT_PER_MINUTE: String(LIMIT),
  };
  const small = Object.keys(SMALL_VARIANTS).map((name) => ({
    name,
    command: variant(name),
    path: SMALL_PATH,
  }));
  const lists = [
    ...Object.keys(LIST_VARIANTS).map((name) => ({ name, command: variant(name), path: LIST_PATH })),
    { name: SERVER, command: server, path: LIST_PATH },
  ];
  const rounds: Record<string, Round[]> = {};
  console.log(`load at the beginning ${loadavg()[0]?.toFixed(1)}`);
  for (let round = 0; round < ROUNDS; round++) {
    for (const { name, command, path } of [...small, ...lists]) {
      const process = Bun.spawn(command, { env, stdout: "pipe", stderr: "ignore" });
      rounds[name] = [...(rounds[name] ?? []), await measure(process, requestOf(path, token), seconds)];
    }
  }
  print(
    `GET of ${JSON.stringify(SMALL)}`,
    small.map(({ name }) => ({ name, ...median(rounds[name] ?? []) })),
  );
  print(
    `GET ${LIST_PATH} of ${ENVIRONMENTS} environments`,
    lists.map(({ name }) => ({ name, ...median(rounds[name] ?? []) })),
  );
}

/** Fills the data folder by a server of its own: an administrator with environments, all stopped. */
async function prepare(dataDir: string): Promise<{ token: string; userId: string }> {
  const server = await TestServer.start({ dataDir });
  try {
    const admin = await server.signedIn();
    const ids = await createMany(admin, ENVIRONMENTS);
    await allBecome(admin, "running", ENVIRONMENTS);
    await Promise.all(ids.map((id) => admin.post(`${LIST_PATH}/${id}/stop`)));
    await allBecome(admin, "stopped", ENVIRONMENTS);
    return { token: admin.token, userId: String((await admin.get("/api/v1/users/me")).id) };
  } finally {
    await server.stop();
  }
}

function requestOf(path: string, token: string): string {
  return `GET ${path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer ${token}\r\nUser-Agent: bench\r\n\r\n`;
}

/** The first line is what the others are compared with; what each adds is seen against the line above it. */
function print(title: string, medians: (Round & { name: string })[]): void {
  console.log(`\n${title.padEnd(40)} requests/s   CPU µs     added   throughput   CPU ratio`);
  const [bare] = medians;
  let above = 0;
  for (const { name, perSecond, cpuMicros } of medians) {
    console.log(
      name.padEnd(40),
      perSecond.toFixed(0).padStart(10),
      cpuMicros.toFixed(1).padStart(8),
      (above ? (cpuMicros - above).toFixed(1) : "").padStart(9),
      (perSecond / (bare?.perSecond ?? 1)).toFixed(2).padStart(12),
      ((bare?.cpuMicros ?? 1) / cpuMicros).toFixed(2).padStart(11),
    );
    above = cpuMicros;
  }
}

async function measure(
  server: Bun.Subprocess<"ignore", "pipe", "ignore">,
  request: string,
  seconds: number,
): Promise<Round> {
  try {
    const port = await portOf(server.stdout);
    const length = await answerLength(port, request);
    await load(port, request, length, WARM_UP_SECONDS);
    const before = cpuSeconds(server.pid);
    const answered = await load(port, request, length, seconds);
    const cpu = cpuSeconds(server.pid) - before;
    return { perSecond: answered / seconds, cpuMicros: (cpu / answered) * 1e6 };
  } finally {
    server.kill();
    await server.exited;
  }
}

/** How many requests were answered in `seconds`, one at a time on each connection. */
async function load(port: number, request: string, length: number, seconds: number): Promise<number> {
  let answered = 0;
  const sockets = Array.from({ length: CONNECTIONS }, () => {
    let left = length;
    const socket: Socket = connect(port, "127.0.0.1", () => socket.write(request));
    socket.on("data", (chunk) => {
      left -= chunk.length;
      if (left > 0) return;
      answered += 1;
      left = length;
      socket.write(request);
    });
    return socket;
  });
  await Bun.sleep(seconds * 1000);
  const total = answered;
  for (const socket of sockets) socket.destroy();
  return total;
}

/** All answers have the same length: generated ids and numbers of a limit have so, too. */
function answerLength(port: number, request: string): Promise<number> {
  return new Promise((resolve, reject) => {
    let text = "";
    const socket = connect(port, "127.0.0.1", () => socket.write(request));
    socket.on("data", (chunk) => {
      text += chunk.toString("latin1");
      const body = text.indexOf("\r\n\r\n") + 4;
      const length = body + Number(/content-length: (\d+)/i.exec(text)?.[1]);
      if (body < 4 || text.length < length) return;
      socket.destroy();
      if (text.startsWith("HTTP/1.1 200")) resolve(length);
      else reject(new Error(text));
    });
  });
}

/** Reads on to the end: a server whose output nobody takes would stand still. */
async function portOf(stream: ReadableStream<Uint8Array>): Promise<number> {
  const port = Promise.withResolvers<number>();
  void (async () => {
    let text = "";
    for await (const chunk of stream) {
      text += new TextDecoder().decode(chunk);
      const match = /listens on http:\/\/[\d.]+:(\d+)/.exec(text);
      if (match) port.resolve(Number(match[1]));
    }
    port.reject(new Error(`no server: ${text}`));
  })();
  return port.promise;
}

function median(rounds: Round[]): Round {
  const middle = (key: keyof Round) =>
    quantile(
      rounds.map((round) => round[key]),
      0.5,
    );
  return { perSecond: middle("perSecond"), cpuMicros: middle("cpuMicros") };
}
