import { type App, createApp } from "./app.ts";
import type { GivenPassword } from "./auth/administrators.ts";
import { type Config, ConfigError } from "./config.ts";
import type { SocketHandlers } from "./http/context.ts";
import { createLogger } from "./lib/logger.ts";
import { VERSION } from "./version.ts";

/**
 * Serves until SIGTERM or SIGINT, then ends in order; a second signal exits at once.
 *
 * @returns the exit code
 */
export async function serve(config: Config): Promise<number> {
  const log = createLogger(config.log);
  const stop = signalled();
  const app = await createApp(config, log);
  const server = await listen(config, app);
  const admin = await app.start();
  // The binary begins with a compiler that waits (--compile-jit-policy): what a start runs once is not worth it.
  Bun.unsafe.setJITPolicy(1);
  // stderr carries the log; this is for the person who has started it.
  console.log(welcome(server.url.origin, config, admin));
  for (const line of app.notes()) log.info(line);

  const signal = await stop;
  log.info("stopping", { signal });
  await app.stop(server);
  log.info("stopped");
  return 0;
}

async function listen(config: Config, app: App): Promise<Bun.Server<SocketHandlers>> {
  try {
    return Bun.serve({
      hostname: config.host,
      port: config.port,
      ...app.serve,
      ...(config.tls
        ? { tls: { cert: Bun.file(config.tls.certFile), key: Bun.file(config.tls.keyFile) } }
        : {}),
    });
  } catch (error) {
    await app.stop(undefined);
    const inUse = error instanceof Error && "code" in error && error.code === "EADDRINUSE";
    if (inUse) throw new ConfigError(`PORT=${config.port} is in use on ${config.host}. Example: PORT=8001`);
    throw error;
  }
}

/** Resolves at the first signal; the second ends the process. */
function signalled(): Promise<NodeJS.Signals> {
  return new Promise((resolve) => {
    let seen = false;
    for (const name of ["SIGTERM", "SIGINT"] as const) {
      process.on(name, () => {
        if (seen) process.exit(130);
        seen = true;
        resolve(name);
      });
    }
  });
}

function welcome(origin: string, config: Config, admin: GivenPassword | null): string {
  const base = config.publicUrl?.origin ?? origin;
  const local = config.port === 8000 ? "" : ` --url ${origin}`;
  const secret = admin?.generatedPassword
    ? [
        "",
        `  The administrator is ${admin.user.username}, password ${admin.generatedPassword} (shown this once)`,
      ]
    : [];
  return [
    `DevPocket ${VERSION} listens on ${origin} (data in ${config.dataDir})`,
    ...secret,
    "",
    "  What next:",
    `  1. devpocket connect --user admin${local}: sign in, get an environment made and type in its terminal`,
    `  2. ${base}/docs: every call of the API, to be tried from the browser`,
    "  3. devpocket serve --help: clusters, mail, HTTPS and the rest of the configuration",
    "",
  ].join("\n");
}
