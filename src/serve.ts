import { readFileSync } from "node:fs";
import { DEFAULT_URL, localUrl } from "./address.ts";
import { type App, createApp } from "./app.ts";
import type { GivenPassword } from "./auth/administrators.ts";
import { type Config, ConfigError, configWarnings } from "./config/config.ts";
import type { SocketHandlers } from "./http/context.ts";
import { readTls } from "./http/tls.ts";
import { createLogger, type Logger } from "./lib/logger.ts";
import { program } from "./program.ts";
import { VERSION } from "./version.ts";

/** In a line of /proc/PID/status: bit 0, the first signal. */
const SIGHUP_BIT = 1n;

/**
 * Serves until SIGTERM, SIGINT or the end of its terminal, then ends in order; a second signal exits at once.
 *
 * @returns the exit code
 */
export async function serve(config: Config): Promise<number> {
  const log = createLogger(config.log);
  const stop = signalled();
  const tls = config.tls && readTls(config.tls);
  const app = await createApp(config, log);
  const server = await listen(config, app, tls);
  const admin = await app.start().catch(async (error: unknown) => {
    await app.stop(server);
    throw error;
  });
  outliveFaults(log);
  // The binary begins with a compiler that waits (--compile-jit-policy): what a start runs once is not worth it.
  Bun.unsafe.setJITPolicy(1);
  // stderr carries the log; this is for the person who has started it.
  console.log(welcome(server, config, admin));
  for (const line of configWarnings(config)) log.warn(line);
  for (const line of app.notes()) log.info(line);

  const signal = await stop;
  log.info("stopping", { signal });
  await app.stop(server);
  log.info("stopped");
  return 0;
}

async function listen(
  config: Config,
  app: App,
  tls: Bun.TLSOptions | undefined,
): Promise<Bun.Server<SocketHandlers>> {
  try {
    return Bun.serve({
      hostname: config.host,
      port: config.port,
      ...app.serve,
      ...(tls ? { tls } : {}),
    });
  } catch (error) {
    await app.stop(undefined);
    throw listenFault(config, error) ?? error;
  }
}

/** Which variable is to blame, where it is one. */
function listenFault({ host, port }: Config, error: unknown): ConfigError | undefined {
  if (!(error instanceof Error) || !("code" in error)) return undefined;
  switch (error.code) {
    case "EADDRINUSE":
      return new ConfigError(`PORT=${port} is in use on ${host}. Example: PORT=8001`);
    case "EACCES":
      return new ConfigError(`PORT=${port} is not for an ordinary user. Example: PORT=8000`);
    case "EADDRNOTAVAIL":
    case "ENOENT":
      return new ConfigError(`HOST=${host} is no address of this machine. Example: HOST=0.0.0.0`);
    default:
      return undefined;
  }
}

/**
 * An error that nobody has caught is a fault of ours, but costs one piece of work, as a request's costs one
 * answer. To end here would end everybody's terminals, and all that runs on this machine; what was cut
 * short is looked at again, from what the database says is wanted. A start that fails has ended before.
 */
function outliveFaults(log: Logger): void {
  for (const event of ["uncaughtException", "unhandledRejection"] as const) {
    process.on(event, (error: unknown) =>
      log.error("nobody has caught an error", {
        event,
        stack: (error instanceof Error && error.stack) || String(error),
      }),
    );
  }
}

/** Resolves at the first signal; the second ends the process. */
function signalled(): Promise<NodeJS.Signals> {
  return new Promise((resolve) => {
    let seen = false;
    for (const name of ["SIGTERM", "SIGINT", ...(ignoresHangup() ? [] : (["SIGHUP"] as const))] as const) {
      process.on(name, () => {
        if (seen) process.exit(130);
        seen = true;
        resolve(name);
      });
    }
  });
}

/** Started with nohup it is to outlive its terminal. */
function ignoresHangup(): boolean {
  try {
    const [, ignored = "0"] =
      /^SigIgn:\s*([0-9a-f]+)$/m.exec(readFileSync("/proc/self/status", "utf8")) ?? [];
    return (BigInt(`0x${ignored}`) & SIGHUP_BIT) !== 0n;
  } catch {
    return false;
  }
}

function welcome(server: Bun.Server<SocketHandlers>, config: Config, admin: GivenPassword | null): string {
  const base = config.publicUrl?.origin ?? localUrl({ ...config, port: server.port ?? config.port });
  const url = base === DEFAULT_URL ? "" : ` --url ${base}`;
  const secret = admin?.generatedPassword
    ? [
        "",
        `  The administrator is ${admin.user.username}, password ${admin.generatedPassword} (shown this once)`,
      ]
    : [];
  return [
    `DevPocket ${VERSION} listens on ${server.url.origin} (data in ${config.dataDir})`,
    ...secret,
    "",
    "  What next:",
    `  1. ${program()} connect --user admin${url}: sign in, get an environment made and type in its terminal`,
    `  2. ${base}/docs: every call of the API, to be tried from the browser`,
    `  3. ${program()} serve --help: clusters, mail, HTTPS and the rest of the configuration`,
    "",
  ].join("\n");
}
