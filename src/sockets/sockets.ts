import type { Guard } from "../auth/guard.ts";
import type { Config } from "../config/config.ts";
import type { EnvironmentStatus } from "../db/schema.ts";
import type { Environments } from "../environments/environments.ts";
import { messageOf, refOf } from "../environments/rows.ts";
import { notFound } from "../errors.ts";
import type { Router } from "../http/router.ts";
import type { Logger } from "../lib/logger.ts";
import type { LogStore } from "../logs/store.ts";
import type { Runtime } from "../runtime/runtime.ts";
import { TerminalHub } from "../terminal/hub.ts";
import type { EnvironmentAccess } from "./access.ts";
import { Connections } from "./connections.ts";
import { logSocketRoutes } from "./logs.ts";
import { terminalRoutes } from "./routes.ts";
import { Tickets } from "./tickets.ts";

/** In these nothing of the environment's processes is left, or will be in a moment. */
const ENDS_TERMINALS: ReadonlySet<EnvironmentStatus> = new Set([
  "stopping",
  "restarting",
  "error",
  "terminated",
]);

interface SocketsOptions {
  config: Pick<Config, "sockets" | "corsOrigins" | "publicUrl">;
  guard: Guard;
  /** Whether a sign-in session has neither ended nor expired. */
  sessionLives(sessionId: string): boolean;
  environments: Environments;
  logStore: LogStore;
  runtimeOf(clusterId: string): Runtime;
  onTerminalBytes(direction: "in" | "out", bytes: number): void;
  log: Logger;
}

/** Everything that goes through WebSockets, and the terminals behind them. */
export interface Sockets {
  routers: Router[];
  /** How many are open. */
  readonly size: number;
  /** How many terminals' shells run, whether anyone looks at them or not. */
  readonly terminals: number;
  /** A sign-in session has ended: so do its sockets and its tickets. */
  closeSession(sessionId: string): void;
  start(): void;
  /** Tells every client that the server goes, and lets go of all terminals. */
  stop(): void;
}

/** Puts the room together: connections, terminals, and what both are told of environments. */
export function createSockets(options: SocketsOptions): Sockets {
  const { config, guard, environments, log } = options;
  const connections = new Connections({
    perUser: config.sockets.connectionsPerUser,
    sessionLives: options.sessionLives,
    failed: (error) => log.error("whether a sign-in session lives can't be found out", { error }),
  });
  const tickets = new Tickets();
  const placeOf = (environmentId: string) => {
    const row = environments.rows.byId(environmentId);
    if (!row) throw notFound("Environment");
    return { runtime: options.runtimeOf(row.clusterId), ref: refOf(row) };
  };
  const hub = new TerminalHub({
    open(environmentId, terminal) {
      const { runtime, ref } = placeOf(environmentId);
      return runtime.openTerminal(ref, terminal);
    },
    async held(environmentId) {
      const { runtime, ref } = placeOf(environmentId);
      return (await runtime.heldTerminals?.(ref)) ?? [];
    },
    running: environments.rows.running,
    async takeUp(environmentId, sessionId) {
      const { runtime, ref } = placeOf(environmentId);
      return (await runtime.heldTerminal?.(ref, sessionId)) ?? null;
    },
    onActivity: environments.activity.touch,
    onBytes: (direction, bytes) => options.onTerminalBytes(direction === "input" ? "in" : "out", bytes),
  });
  environments.feed.watchAll(({ environmentId, status, previous }) => {
    if (status !== previous && ENDS_TERMINALS.has(status)) hub.endAll(environmentId);
  });
  const sockets = {
    authenticate: guard.authenticate,
    tickets,
    connections,
    // A proxy may have put another name where the request names our host.
    allowedOrigins: [...config.corsOrigins, ...(config.publicUrl ? [config.publicUrl.origin] : [])],
    messagesPerMinute: config.sockets.messagesPerMinute,
    log,
  };
  const access = accessTo(environments);
  return {
    routers: [
      terminalRoutes({ environments: access, guard, hub, log, sockets }),
      logSocketRoutes({ environments: access, sockets, store: options.logStore }),
    ],
    get size() {
      return connections.size;
    },
    get terminals() {
      return hub.size;
    },
    closeSession(sessionId) {
      tickets.revokeSession(sessionId);
      connections.closeSession(sessionId);
    },
    start() {
      connections.start();
      hub.start();
    },
    stop() {
      connections.shutDown();
      hub.close();
    },
  };
}

function accessTo({ rows, feed }: Environments): EnvironmentAccess {
  return {
    find(actor, id) {
      const row = rows.owned(id, actor.userId);
      if (!row) return undefined;
      const { name, templateName: template, status, progress, installationCompleted } = row;
      return { id, name, template, status, message: messageOf(row), progress, installationCompleted };
    },
    watch: (id, changed) => feed.watch(id, changed),
  };
}
