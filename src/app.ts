import { statSync } from "node:fs";
import { localUrl } from "./address.ts";
import { SYSTEM_ACTOR } from "./audit/audit.ts";
import { createAccounts } from "./auth/accounts.ts";
import { ensureFirstAdmin, type GivenPassword } from "./auth/administrators.ts";
import { createFleet } from "./clusters/fleet.ts";
import type { Config } from "./config/config.ts";
import { databaseFile, openLockedData } from "./data.ts";
import { databaseCheck } from "./db/check.ts";
import { inTransaction, type Tx } from "./db/open.ts";
import { createEnvironments } from "./environments/environments.ts";
import { PLAN_LIMITS } from "./environments/plans.ts";
import type { SocketHandlers } from "./http/context.ts";
import { type HealthOptions, healthRoutes } from "./http/health.ts";
import { createHttp, type Fetch, MAX_ACCEPTED_BYTES } from "./http/http.ts";
import { metricsRoutes, serveMetrics } from "./http/metrics.ts";
import { type OpenApiDocument, openApiDocument } from "./http/openapi.ts";
import type { Router } from "./http/router.ts";
import type { Logger } from "./lib/logger.ts";
import { endsWithin } from "./lib/within.ts";
import { createLogStore } from "./logs/store.ts";
import { createMailer } from "./mail/mailer.ts";
import { createMetrics } from "./metrics.ts";
import { createLocalRuntime, type LocalRuntime } from "./runtime/local/runtime.ts";
import { websocket } from "./sockets/accept.ts";
import { createSockets } from "./sockets/sockets.ts";
import { createTemplateRoutes } from "./templates/routes.ts";
import { seedTemplates, templateFinder } from "./templates/templates.ts";
import { createAuditRoutes } from "./users/audit-routes.ts";
import { removeDeletedUsers } from "./users/deletion.ts";
import { createHousekeeping } from "./users/housekeeping.ts";
import { createUserRoutes } from "./users/routes.ts";
import { VERSION } from "./version.ts";

/** How long answers, and then the runtimes' connections, may take to end when the server stops. */
const STOP_ANSWERS_MS = 5000;
const STOP_RUNTIMES_MS = 5000;

/** Longer than this is worth a line in the log. */
const SLOW_STOP_MS = 8000;

export interface App {
  /** What `Bun.serve` is given, besides where to listen. */
  serve: { fetch: Fetch; websocket: Bun.WebSocketHandler<SocketHandlers>; maxRequestBodySize: number };
  /** Begins to work and to answer; resolves with the administrator who was made when there was none. */
  start(): Promise<GivenPassword | null>;
  /** The OpenAPI document of all routes. */
  openApi(): OpenApiDocument;
  /** What the person who has started the server should know, a line each. */
  notes(): string[];
  /** Ends everything in order. */
  stop(server: Bun.Server<SocketHandlers> | undefined): Promise<void>;
}

/**
 * The composition root: the one place that knows every room. What a room tells upwards (a session has
 * ended, a status has changed, a terminal was used) is connected here.
 */
export async function createApp(config: Config, log: Logger): Promise<App> {
  const data = openLockedData(config);
  const { db } = data;
  const now = Date.now;
  const stopping = new AbortController();
  let localRuntime: LocalRuntime | undefined;
  let isStarted = false;
  inTransaction(db, (tx) => seedTemplates(tx, now()));

  const mailer = createMailer({ db, config: config.mail, log, now });
  const accounts = createAccounts({
    db,
    config,
    jwtSecret: data.jwtSecret,
    baseUrl: baseUrl(config),
    mailer,
    log,
    now,
    onSessionEnded(id) {
      sockets.closeSession(id);
      environments.logStreams.endSession(id);
    },
  });
  const { guard, passwords, sessions } = accounts;
  const sessionLives = (id: string) => sessions.findActor(id) !== undefined;
  const housekeeping = createHousekeeping({
    db,
    now,
    log,
    sessions,
    auditRetentionMs: config.auditRetentionMs,
  });
  const fleet = createFleet({
    db,
    config,
    encryptionKeys: data.encryptionKeys,
    guard,
    localRuntime: () => localRuntime,
    onOpen: (runtime) => environments.follow(runtime),
    onReachability: (clusterId) => environments.lookAt(clusterId),
    onEnvironmentsGivenUp: (givenUp) => environments.givenUp(givenUp),
    log,
    now,
    stopping: stopping.signal,
  });
  const logStore = createLogStore(db, now);
  const environments = createEnvironments({
    db,
    config,
    log,
    now,
    logStore,
    runtimeOf: fleet.runtimes.of,
    runtimes: fleet.runtimes.all,
    findTemplate: templateFinder(db),
    place: fleet.place,
    requireActor: guard.requireActor,
    sessionLives,
    mailer,
    onTornDown: () => void removeDeletedUsers(db),
    stopping: stopping.signal,
  });
  const sockets = createSockets({
    config,
    guard,
    sessionLives,
    environments,
    logStore,
    runtimeOf: fleet.runtimes.of,
    onTerminalBytes: (direction, bytes) => metrics?.terminalBytes(direction, bytes),
    log,
  });
  const hasMetrics = config.metrics.port !== undefined || config.metrics.token !== undefined;
  const metrics = hasMetrics
    ? await createMetrics(VERSION, {
        environmentsByStatus: environments.rows.countByStatus,
        websockets: () => sockets.size,
        terminals: () => sockets.terminals,
        queueDepth: () => environments.queueDepth,
        databaseBytes: () => statSync(databaseFile(config)).size,
      })
    : undefined;
  environments.feed.watchAll(({ status, previous, lastedMs }) => {
    if (status !== previous) metrics?.transition({ from: previous, to: status, durationMs: lastedMs });
  });

  const users = {
    ...accounts,
    onUserDeleted: (tx: Tx, userId: string) =>
      environments.ofUser(tx, userId, "delete", { ...SYSTEM_ACTOR, userId }),
    onUserDeactivated: (tx: Tx, userId: string) => environments.ofUser(tx, userId, "suspend", SYSTEM_ACTOR),
  };
  const metricsHere = metrics && config.metrics.token !== undefined && config.metrics.port === undefined;
  const routers: Router[] = [
    healthRoutes({
      about: { version: VERSION, environment: config.environment },
      checks: { database: databaseCheck(data.sqlite) },
      info: info(
        config,
        { google: accounts.hasGoogle, mail: mailer.isConfigured, metrics: hasMetrics },
        () => localRuntime,
      ),
      now,
      onUnhealthy: (check, error) => log.error("not ready", { check, error }),
    }),
    ...accounts.routers,
    createUserRoutes(users),
    createAuditRoutes({ db, now, guard }),
    createTemplateRoutes({ db, now, guard }),
    ...fleet.routers,
    ...environments.routers,
    ...sockets.routers,
    ...(metricsHere ? [metricsRoutes(metrics, config.metrics.token ?? "")] : []),
  ];
  const fetch = createHttp({
    config,
    version: VERSION,
    log,
    identify: guard.identify,
    routers,
    isStarted: () => isStarted,
    ...(metrics ? { onAnswered: metrics.request } : {}),
  });
  let metricsServer: Bun.Server<undefined> | undefined;

  return {
    serve: { fetch, websocket, maxRequestBodySize: MAX_ACCEPTED_BYTES },
    openApi: () => openApiDocument(routers, { version: VERSION, publicUrl: config.publicUrl }),
    async start() {
      const { port, token } = config.metrics;
      if (metrics && port !== undefined)
        metricsServer = serveMetrics(metrics, { host: config.host, port, token });
      if (config.localRuntime) localRuntime = await createLocalRuntime({ dataDir: config.dataDir, log, now });
      await fleet.open();
      // After all that may fail: a password that is made up is shown once, by a server that has started.
      const admin = await ensureFirstAdmin({ db, now, passwords }, config.admin);
      environments.start();
      sockets.start();
      mailer.start();
      housekeeping.start();
      isStarted = true;
      return admin;
    },
    notes() {
      const made = data.keysMade.map((file) => `Made the key ${file}; keep it with the backups`);
      return [...made, ...(localRuntime ? [isolationNote(localRuntime)] : [])];
    },
    async stop(server) {
      const slow = setTimeout(() => log.warn("stopping takes long"), SLOW_STOP_MS);
      // New connections are refused; what is under way is told and may end.
      const answered = server?.stop();
      stopping.abort();
      housekeeping.stop();
      await environments.stop();
      await mailer.stop();
      sockets.stop();
      if (server && answered && !(await endsWithin(STOP_ANSWERS_MS, answered))) {
        log.warn("requests still open at stop", { count: server.pendingRequests });
        await server.stop(true);
      }
      if (!(await endsWithin(STOP_RUNTIMES_MS, fleet.close()))) log.warn("runtimes still open at stop");
      metrics?.stop();
      await metricsServer?.stop(true);
      data.close();
      clearTimeout(slow);
    },
  };
}

/** What `/api/v1/info` tells. */
function info(
  config: Config,
  has: { google: boolean; mail: boolean; metrics: boolean },
  localRuntime: () => LocalRuntime | undefined,
): HealthOptions["info"] {
  return {
    features: {
      googleOauth: has.google,
      rateLimiting: config.rateLimits.generalPerMinute > 0,
      metrics: has.metrics,
      mail: has.mail,
      registration: config.registration === "open",
    },
    environmentsPerPlan: {
      free: PLAN_LIMITS.free.environments,
      starter: PLAN_LIMITS.starter.environments,
      pro: PLAN_LIMITS.pro.environments,
    },
    localRuntime() {
      const isolation = localRuntime()?.isolation;
      const sandbox = isolation ? (isolation.sandboxed ? "bubblewrap" : "none") : null;
      return { enabled: config.localRuntime, sandbox };
    },
  };
}

function isolationNote({ isolation }: LocalRuntime): string {
  return isolation.sandboxed
    ? "Environments run on this machine, each in a bubblewrap sandbox"
    : `Environments run on this machine without a sandbox: ${isolation.reason}`;
}

/** Where links in messages lead to. */
function baseUrl(config: Config): string {
  return config.publicUrl?.href.replace(/\/$/, "") ?? localUrl(config);
}
