import type { MiddlewareHandler } from "hono";
import type { AuditActor } from "../audit/audit.ts";
import { SYSTEM_ACTOR } from "../audit/audit.ts";
import type { GivenUp } from "../clusters/clusters.ts";
import type { Place } from "../clusters/placement.ts";
import type { Config } from "../config/config.ts";
import { type Db, inTransaction, type Tx } from "../db/open.ts";
import type { HttpEnv } from "../http/context.ts";
import type { Router } from "../http/router.ts";
import type { Logger } from "../lib/logger.ts";
import { endsWithin } from "../lib/within.ts";
import { createLogCollector } from "../logs/collect.ts";
import type { LogStore } from "../logs/store.ts";
import type { Mailer } from "../mail/mailer.ts";
import type { Runtime } from "../runtime/runtime.ts";
import type { FindTemplate } from "../templates/templates.ts";
import { type Activity, createActivity } from "./activity.ts";
import { changeOf, StatusFeed } from "./feed.ts";
import { createIdleWatch } from "./idle.ts";
import type { Verb } from "./lifecycle.ts";
import { createLogRoutes } from "./log-routes.ts";
import { createLogStreams, type LogStreams } from "./log-streams.ts";
import { applyToAll } from "./owners.ts";
import { createReconciler } from "./reconciler.ts";
import { createRetention } from "./retention.ts";
import { createEnvironmentRoutes } from "./routes.ts";
import { type Environment, type EnvironmentRows, environmentRows, refOf } from "./rows.ts";
import { beginServing } from "./servings.ts";
import { createSweep } from "./sweep.ts";
import { createUsageMeter } from "./usage.ts";
import { applyVerb } from "./verbs.ts";

/** How long running steps, and then logs that are being read, may take to end when the server stops. */
const STOP_STEPS_MS = 5000;
const STOP_LOGS_MS = 2000;

export interface EnvironmentsOptions {
  db: Db;
  config: Pick<Config, "deadlines" | "idleStopMs" | "deleteStoppedAfterMs">;
  log: Logger;
  now(): number;
  logStore: LogStore;
  runtimeOf(clusterId: string): Runtime;
  /** Open runtimes by cluster id. */
  runtimes(): ReadonlyMap<string, Runtime>;
  findTemplate: FindTemplate;
  place: Place;
  requireActor: MiddlewareHandler<HttpEnv>;
  /** Whether a sign-in session has neither ended nor expired. */
  sessionLives(sessionId: string): boolean;
  mailer: Pick<Mailer, "isConfigured" | "enqueue">;
  /** An environment of the user is wholly gone, or there was none to tear down. */
  onTornDown(userId: string): void;
  /** Aborts when the server stops. */
  stopping: AbortSignal;
}

export interface Environments {
  rows: EnvironmentRows;
  feed: StatusFeed;
  activity: Activity;
  logStreams: LogStreams;
  routers: Router[];
  /** Follows the hints of a runtime that has come to be. */
  follow(runtime: Runtime): void;
  /** What becomes of someone's environments when the account is deleted or deactivated; in its transaction. */
  ofUser(tx: Tx, userId: string, verb: Verb & ("delete" | "suspend"), actor: AuditActor): void;
  /** Looks soon at all that live on a cluster: it can't be reached any more, or can again. */
  lookAt(clusterId: string): void;
  /** These have ended with their cluster, for good. */
  givenUp(changes: GivenUp[]): void;
  /** Ids that the reconciler works on or is about to. */
  readonly queueDepth: number;
  start(): void;
  stop(): Promise<void>;
}

/** Puts the room together: what is wanted, what brings it about, and what watches over it. */
export function createEnvironments(options: EnvironmentsOptions): Environments {
  const { db, config, log, now, logStore, runtimeOf, requireActor, mailer, stopping } = options;
  const { deadlines } = config;
  const rows = environmentRows(db);
  const feed = new StatusFeed();
  const activity = createActivity(db, now, log);
  const logStreams = createLogStreams({ sessionLives: options.sessionLives });
  const usage = createUsageMeter({ db, rows, runtimeOf, now, log });
  const collector = createLogCollector<ReturnType<typeof refOf> & { clusterId: string }>({
    store: logStore,
    runtimeOf: ({ clusterId }) => runtimeOf(clusterId),
    log,
  });
  const reconciler = createReconciler({
    db,
    rows,
    runtimeOf,
    deadlines,
    feed,
    log,
    now,
    flushLogs: (id) => collector.flush(id),
    logSystem: (tx, row, note) => logStore.appendSystem(row.id, { generation: row.generation, ...note }, tx),
    collectLogs: (row) => collector.start({ ...refOf(row), clusterId: row.clusterId }),
    tornDown: (row) => ended(row, row),
  });

  /** Nothing is left of it. */
  function ended(before: Environment, after: Environment): void {
    void collector.stop(after.id);
    announce(before, after);
    options.onTornDown(after.userId);
  }

  function announce(before: Environment, after: Environment): void {
    feed.publish(changeOf(before, after, now()));
  }

  /** After the commit: the reconciler looks, and whoever watches is told. */
  function follow(before: Environment, after: Environment): void {
    reconciler.wake(after.id);
    announce(before, after);
  }

  /** A verb of DevPocket's own. The row may have moved on since it was read: then there is nothing to do. */
  function act(row: Environment, verb: Verb, reason: string): void {
    const changed = inTransaction(db, (tx) => {
      const current = rows.byId(row.id);
      if (current?.generation !== row.generation || current.status !== row.status) return null;
      const changed = applyVerb(tx, current, verb, { actor: SYSTEM_ACTOR, reason, deadlines, now: now() });
      logStore.appendSystem(row.id, { generation: changed.generation, message: reason }, tx);
      return changed;
    });
    if (changed) follow(row, changed);
  }

  const idle = createIdleWatch({
    db,
    activity,
    limits: config.idleStopMs,
    now,
    log,
    warn: (row, message) =>
      logStore.appendSystem(row.id, { generation: row.generation, level: "WARN", message }),
    stop: (row, reason) => act(row, "stop", reason),
  });
  const retention = createRetention({
    db,
    stoppedMs: config.deleteStoppedAfterMs,
    now,
    log,
    mail: mailer.isConfigured ? mailer.enqueue : null,
    note: (tx, row, message) =>
      logStore.appendSystem(row.id, { generation: row.generation, level: "WARN", message }, tx),
    remove: (row, reason) => act(row, "delete", reason),
  });

  const sweep = createSweep({ db, rows, runtimes: options.runtimes, now, log });

  const routers = [
    createEnvironmentRoutes({
      db,
      rows,
      feed,
      usage,
      deadlines,
      requireActor,
      findTemplate: options.findTemplate,
      place: options.place,
      mailConfigured: mailer.isConfigured,
      wake: (id) => reconciler.wake(id),
      follow,
      stopping,
      now,
    }),
    createLogRoutes({
      store: logStore,
      streams: logStreams,
      owned: (id, userId) => rows.owned(id, userId),
      watchDeletion: (id, deleted) =>
        feed.watch(id, ({ status }) => {
          if (status === "terminated") deleted();
        }),
      requireActor,
      stopping,
    }),
  ];

  return {
    rows,
    feed,
    activity,
    logStreams,
    routers,
    follow: (runtime) => reconciler.follow(runtime),
    ofUser(tx, userId, verb, actor) {
      const reason = verb === "delete" ? "The account was deleted" : "The account was deactivated";
      const changes = applyToAll(tx, userId, verb, { actor, reason, deadlines, now: now() });
      // Transactions are synchronous: a microtask runs after this one's commit or rollback.
      queueMicrotask(() => {
        try {
          for (const { before, after } of changes) {
            if (rows.byId(after.id)?.generation === after.generation) follow(before, after);
          }
          if (verb === "delete") options.onTornDown(userId);
        } catch (error) {
          // Nobody could catch it; the reconciler looks at everything by itself, too.
          log.error("following a change of an account failed", { user_id: userId, error });
        }
      });
    },
    lookAt(clusterId) {
      for (const id of rows.unfinishedOn(clusterId)) reconciler.wake(id);
    },
    givenUp(changes) {
      for (const { before, after } of changes) ended(before, after);
    },
    get queueDepth() {
      return reconciler.depth;
    },
    start() {
      beginServing(db, now());
      reconciler.start();
      usage.start();
      idle.start();
      retention.start();
      sweep.start();
    },
    async stop() {
      usage.stop();
      idle.stop();
      retention.stop();
      sweep.stop();
      await reconciler.stop(STOP_STEPS_MS);
      if (!(await endsWithin(STOP_LOGS_MS, collector.close())))
        log.warn("logs still being read at stop", { count: collector.active });
      activity.flush();
    },
  };
}
