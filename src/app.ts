import { existsSync, statSync } from "node:fs";
import { SYSTEM_ACTOR } from "./audit/audit.ts";
import { ensureFirstAdmin, type GivenPassword } from "./auth/administrators.ts";
import { createGoogle } from "./auth/google.ts";
import { createGoogleRoutes, GOOGLE_CALLBACK_PATH } from "./auth/google-routes.ts";
import { createGuard } from "./auth/guard.ts";
import { createPageRoutes } from "./auth/page-routes.ts";
import { createPasswords } from "./auth/passwords.ts";
import { createRecoveryRoutes } from "./auth/recovery-routes.ts";
import { createAuthRoutes } from "./auth/routes.ts";
import { createSessions } from "./auth/sessions.ts";
import { createTokens } from "./auth/tokens.ts";
import { createCapacityBook } from "./clusters/capacity.ts";
import { hasKubernetesClusters } from "./clusters/clusters.ts";
import { ensureLocalCluster } from "./clusters/local.ts";
import { createPlacement } from "./clusters/placement.ts";
import { createClusterRoutes } from "./clusters/routes.ts";
import { createClusterRuntimes } from "./clusters/runtimes.ts";
import { createVault } from "./clusters/vault.ts";
import { type Config, ConfigError } from "./config.ts";
import { databaseFile, openLockedData } from "./data.ts";
import { databaseCheck } from "./db/check.ts";
import { installationId } from "./db/installation.ts";
import { inTransaction, type Tx } from "./db/open.ts";
import type { EnvironmentStatus } from "./db/schema.ts";
import { createEnvironments, type Environments } from "./environments/environments.ts";
import { PLAN_LIMITS } from "./environments/plans.ts";
import { refOf } from "./environments/rows.ts";
import { notFound } from "./errors.ts";
import type { SocketHandlers } from "./http/context.ts";
import { healthRoutes } from "./http/health.ts";
import { createHttp, type Fetch, MAX_ACCEPTED_BYTES } from "./http/http.ts";
import { metricsRoutes, serveMetrics } from "./http/metrics.ts";
import { type OpenApiDocument, openApiDocument } from "./http/openapi.ts";
import type { Router } from "./http/router.ts";
import type { Logger } from "./lib/logger.ts";
import { createLogStore } from "./logs/store.ts";
import { createMailer } from "./mail/mailer.ts";
import { createMetrics } from "./metrics.ts";
import { podRequests } from "./runtime/kubernetes/manifests.ts";
import { createLocalRuntime, type LocalRuntime } from "./runtime/local/runtime.ts";
import { RuntimeUnreachable } from "./runtime/runtime.ts";
import { websocket } from "./sockets/accept.ts";
import { Connections } from "./sockets/connections.ts";
import { logSocketRoutes } from "./sockets/logs.ts";
import { terminalRoutes } from "./sockets/routes.ts";
import type { EnvironmentAccess } from "./sockets/terminal.ts";
import { Tickets } from "./sockets/tickets.ts";
import { createTemplateRoutes } from "./templates/routes.ts";
import { seedTemplates, templateFinder } from "./templates/templates.ts";
import { TerminalHub } from "./terminal/hub.ts";
import { createAuditRoutes } from "./users/audit-routes.ts";
import { removeDeletedUsers } from "./users/deletion.ts";
import { createHousekeeping } from "./users/housekeeping.ts";
import { createUserRoutes } from "./users/routes.ts";
import { VERSION } from "./version.ts";

/** In these nothing of the environment's processes is left, or will be in a moment. */
const ENDS_TERMINALS: ReadonlySet<EnvironmentStatus> = new Set([
  "stopping",
  "restarting",
  "error",
  "terminated",
]);

/** Where Kubernetes puts the token of the service account of the pod that the server runs in. */
const SERVICE_ACCOUNT_TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/** Longer than this is worth a line in the log. */
const SLOW_STOP_MS = 8000;

export interface App {
  /** What `Bun.serve` is given, besides where to listen. */
  serve: { fetch: Fetch; websocket: Bun.WebSocketHandler<SocketHandlers>; maxRequestBodySize: number };
  /** Begins to work; resolves with the administrator who was made when there was none. */
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
  const measured = config.metrics.port !== undefined || config.metrics.token !== undefined;

  inTransaction(db, (tx) => {
    seedTemplates(tx, now());
    ensureLocalCluster(tx, now());
  });

  // Who is asking.
  const passwords = createPasswords();
  const tokens = createTokens({ secret: data.jwtSecret, now });
  const connections = new Connections({ perUser: config.sockets.connectionsPerUser });
  const sessions = createSessions({
    db,
    now,
    onSessionEnded(id) {
      connections.closeSession(id);
      environments.logStreams.endSession(id);
    },
  });
  const guard = createGuard({ tokens, sessions });
  const mailer = createMailer({ db, config: config.mail, log, now });
  const housekeeping = createHousekeeping({
    db,
    now,
    log,
    sessions,
    auditRetentionMs: config.auditRetentionMs,
  });

  // Where environments run.
  let localRuntime: LocalRuntime | undefined;
  const vault = createVault(data.encryptionKeys);
  const kubernetes = loadKubernetes();
  const runtimes = createClusterRuntimes({
    db,
    vault,
    localRuntime: () => localRuntime,
    makeKubernetesRuntime: (kubeconfig) =>
      kubernetes.loaded().openKubernetesRuntime(kubeconfig, { log, now, serverId: installationId(db) }),
    onOpen: (runtime) => environments.follow(runtime),
    log,
  });
  const capacity = createCapacityBook({ db, runtimeOf: runtimes.of, now, log });

  // What lives there.
  const logStore = createLogStore(db, now);
  const environments = createEnvironments({
    db,
    config,
    log,
    now,
    logStore,
    runtimeOf: runtimes.of,
    runtimes: runtimes.all,
    findTemplate: templateFinder(db),
    place: createPlacement({ capacity, localEnabled: config.localRuntime, requestsOf: podRequests }),
    requireActor: guard.requireActor,
    mailer,
    onTornDown: () => void removeDeletedUsers(db),
    stopping: stopping.signal,
  });

  // How it is reached.
  const hub = new TerminalHub({
    open(environmentId, options) {
      const row = environments.rows.byId(environmentId);
      if (!row) throw notFound("Environment");
      return runtimes.of(row.clusterId).openTerminal(refOf(row), options);
    },
    onActivity: environments.activity.touch,
    onBytes: (direction, bytes) => metrics?.terminalBytes(direction === "input" ? "in" : "out", bytes),
  });
  environments.feed.watchAll((change) => {
    if (change.status === change.previous) return;
    if (ENDS_TERMINALS.has(change.status)) hub.endAll(change.environmentId);
  });
  const sockets = {
    authenticate: guard.authenticate,
    tickets: new Tickets({ now }),
    connections,
    allowedOrigins: config.corsOrigins,
    messagesPerMinute: config.sockets.messagesPerMinute,
    log,
  };
  const access = accessFor(environments);

  const metrics = measured ? await createMetrics(VERSION, metricsSources()) : undefined;

  function metricsSources() {
    return {
      environmentsByStatus: environments.rows.countByStatus,
      websockets: () => ({ all: connections.size }),
      queueDepth: () => environments.queueDepth,
      databaseBytes: () => statSync(databaseFile(config)).size,
    };
  }
  const google = createGoogle({
    ...config.google,
    redirectUri: baseUrl(config) + GOOGLE_CALLBACK_PATH,
    now,
    log,
  });
  const accounts = {
    db,
    now,
    registration: config.registration,
    passwords,
    tokens,
    sessions,
    guard,
    mailer,
    baseUrl: baseUrl(config),
    onUserDeleted: (tx: Tx, userId: string) =>
      environments.ofUser(tx, userId, "delete", { ...SYSTEM_ACTOR, userId }),
    onUserDeactivated: (tx: Tx, userId: string) => environments.ofUser(tx, userId, "suspend", SYSTEM_ACTOR),
  };
  const routers: Router[] = [
    healthRoutes({
      about: { version: VERSION, environment: config.environment },
      checks: { database: databaseCheck(data.sqlite) },
      info: {
        features: {
          googleOauth: google !== null,
          rateLimiting: config.rateLimits.generalPerMinute > 0,
          metrics: measured,
          mail: mailer.isConfigured,
          registration: config.registration === "open",
        },
        environmentsPerPlan: {
          free: PLAN_LIMITS.free.environments,
          starter: PLAN_LIMITS.starter.environments,
          pro: PLAN_LIMITS.pro.environments,
        },
        localRuntime: () => ({
          enabled: config.localRuntime,
          sandbox: localRuntime ? (localRuntime.isolation.sandboxed ? "bubblewrap" : "none") : null,
        }),
      },
      now,
      onUnhealthy: (check, error) => log.error("not ready", { check, error }),
    }),
    createAuthRoutes(accounts),
    createRecoveryRoutes(accounts),
    createPageRoutes(accounts),
    createGoogleRoutes({ ...accounts, google }),
    createUserRoutes(accounts),
    createAuditRoutes(accounts),
    createTemplateRoutes({ db, now, guard }),
    createClusterRoutes({
      db,
      now,
      guard,
      vault,
      runtimes,
      capacity,
      localEnabled: config.localRuntime,
      async vet(kubeconfig) {
        await kubernetes.load();
        const { vetCluster } = await import("./clusters/vetting.ts");
        await vetCluster(kubeconfig);
      },
      onEnvironmentsGivenUp: environments.givenUp,
    }),
    ...environments.routers,
    terminalRoutes({ environments: access, guard, hub, log, sockets }),
    logSocketRoutes({ environments: access, sockets, store: logStore }),
    ...(metrics && config.metrics.token && config.metrics.port === undefined
      ? [metricsRoutes(metrics, config.metrics.token)]
      : []),
  ];

  const fetch = createHttp({
    config,
    version: VERSION,
    log,
    identify: guard.identify,
    routers,
    ...(metrics ? { onAnswered: metrics.request } : {}),
  });
  let metricsServer: Bun.Server<undefined> | undefined;

  return {
    serve: { fetch, websocket, maxRequestBodySize: MAX_ACCEPTED_BYTES },
    openApi: () => openApiDocument(routers, { version: VERSION, publicUrl: config.publicUrl }),
    async start() {
      const admin = await ensureFirstAdmin({ db, now, passwords }, config.admin);
      if (config.localRuntime) localRuntime = await createLocalRuntime({ dataDir: config.dataDir, log, now });
      await openClusters();
      capacity.start();
      environments.start();
      connections.start();
      hub.start();
      mailer.start();
      housekeeping.start();
      if (metrics && config.metrics.port !== undefined) {
        const { port, token } = config.metrics;
        metricsServer = serveMetrics(metrics, { host: config.host, port, token });
      }
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
      capacity.stop();
      housekeeping.stop();
      await environments.stop();
      await mailer.stop();
      connections.shutDown();
      hub.close();
      await answered;
      await runtimes.close();
      metrics?.stop();
      await metricsServer?.stop(true);
      data.close();
      clearTimeout(slow);
    },
  };

  async function openClusters(): Promise<void> {
    const { clusterKubeconfigFile } = config;
    const inPod = existsSync(SERVICE_ACCOUNT_TOKEN);
    if (hasKubernetesClusters(db) || clusterKubeconfigFile || inPod) {
      await kubernetes.load();
      const [{ registerFromFile, registerFromPod }, { vetCluster }] = await Promise.all([
        import("./clusters/configured.ts"),
        import("./clusters/vetting.ts"),
      ]);
      const onChange = (id: string) => void runtimes.renew(id);
      const deps = { db, vault, now, log, vet: vetCluster, onChange };
      if (clusterKubeconfigFile)
        registerConfigured(() => registerFromFile(deps, clusterKubeconfigFile), clusterKubeconfigFile);
      if (inPod) void registerFromPod(deps, { signal: stopping.signal });
    }
    runtimes.openAll();
  }
}

/** The Kubernetes client library is large: it is loaded when there is a cluster. */
function loadKubernetes() {
  let module: typeof import("./clusters/kubernetes.ts") | undefined;
  return {
    async load() {
      module ??= await import("./clusters/kubernetes.ts");
    },
    loaded() {
      if (!module) throw new RuntimeUnreachable("The Kubernetes client is not loaded yet");
      return module;
    },
  };
}

/** @throws ConfigError for a file that can't be used at all */
function registerConfigured(register: () => void, file: string): void {
  try {
    register();
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new ConfigError(`CLUSTER_KUBECONFIG_FILE=${file} can't be used: ${reason}`);
  }
}

/** What the sockets see of environments. */
function accessFor({ rows, feed }: Environments): EnvironmentAccess {
  return {
    find(actor, id) {
      const row = rows.owned(id, actor.userId);
      if (!row) return undefined;
      const {
        name,
        templateName: template,
        status,
        statusMessage: message,
        progress,
        installationCompleted,
      } = row;
      return { id, name, template, status, message, progress, installationCompleted };
    },
    watch: (id, changed) => feed.watch(id, changed),
  };
}

function isolationNote({ isolation }: LocalRuntime): string {
  return isolation.sandboxed
    ? "Environments run on this machine, each in a bubblewrap sandbox"
    : `Environments run on this machine without a sandbox: ${isolation.reason}`;
}

/** Where links in messages lead to. */
function baseUrl({ publicUrl, host, port, tls }: Config): string {
  return publicUrl ? publicUrl.href.replace(/\/$/, "") : `${tls ? "https" : "http"}://${host}:${port}`;
}
