import { and, eq } from "drizzle-orm";
import { type Db, type DbOrTx, inTransaction, type Tx } from "../db/open.ts";
import { environments } from "../db/schema.ts";
import { type Backoff, backoffMs } from "../lib/backoff.ts";
import { every } from "../lib/every.ts";
import type { Logger } from "../lib/logger.ts";
import { pause } from "../lib/pause.ts";
import { WorkQueue } from "../lib/workqueue.ts";
import { type Observed, type Runtime, RuntimeRejected, RuntimeUnreachable } from "../runtime/runtime.ts";
import { renewDeadlines } from "./deadlines.ts";
import { changeOf, type StatusFeed } from "./feed.ts";
import { type Deadlines, deadlineMs, endedBy, nextStep, type Situation, type Step } from "./lifecycle.ts";
import { type Environment, type EnvironmentRows, refOf } from "./rows.ts";

/** Different environments of one cluster that are worked on at a time. */
const CONCURRENCY = 16;
/** Everything unfinished or running is looked at this often, whatever the watches have lost. */
const RESYNC_MS = 60_000;
const RETRY: Backoff = { baseMs: 500, maxMs: 30_000 };
/** Until the next try when not even the attempt could be written down: the disk is full, for one. */
const UNWRITABLE_RETRY_MS = 2000;

export interface ReconcilerOptions {
  db: Db;
  rows: EnvironmentRows;
  /** @throws RuntimeUnreachable when the cluster can't be had now */
  runtimeOf(clusterId: string): Runtime;
  deadlines: Deadlines;
  feed: StatusFeed;
  log: Logger;
  now(): number;
  /** Writes what has been read of the environment's log: it was said before what is told next. */
  flushLogs(environmentId: string): void;
  /** A line of DevPocket's own in the environment's log, in the transaction that writes what it tells of. */
  logSystem(tx: Tx, row: Environment, note: SystemNote): void;
  /** Containers of this generation were seen: their log is to be collected. Called at every look. */
  collectLogs(row: Environment): void;
  /** Nothing is left of a terminated environment. */
  tornDown(row: Environment): void;
}

export interface SystemNote {
  message: string;
  level?: "INFO" | "ERROR";
  /** What follows is the log of a new installation. */
  beginsInstallation?: boolean;
}

export interface Reconciler {
  /** Looks at the environment soon; cheap, may be called for any reason. */
  wake(environmentId: string): void;
  /**
   * Looks at every unfinished environment: what a server killed at any instant begins with. Deadlines begin
   * anew, since they ran on while no server did.
   */
  start(): void;
  /** Follows a runtime's hints until it is closed. */
  follow(runtime: Runtime): void;
  /** Ids waiting or being worked on. */
  readonly depth: number;
  /** Lets running steps end for at most `limitMs`. */
  stop(limitMs: number): Promise<void>;
}

/**
 * Brings every environment to what its owner wants. Level-triggered: load the row, observe the runtime, ask
 * `nextStep`, write, act. Whatever is lost on the way, the next look mends.
 */
export function createReconciler(options: ReconcilerOptions): Reconciler {
  const { db, rows, deadlines, feed, log, now } = options;
  /** One for each cluster: where one hangs, the others' environments don't wait for it. */
  const queues = new Map<string, WorkQueue>();
  const stopped = new AbortController();
  let resync: Timer | undefined;
  /** Before it, runtimes may not be there yet; the start looks at everything anyway. */
  let started = false;

  function queueOf(clusterId: string): WorkQueue {
    const known = queues.get(clusterId);
    if (known) return known;
    const queue = new WorkQueue((id) => look(id, queue), { concurrency: CONCURRENCY });
    queues.set(clusterId, queue);
    return queue;
  }

  function wake(id: string): void {
    const clusterId = stopped.signal.aborted ? undefined : rows.clusterOf(id);
    if (clusterId !== undefined) queueOf(clusterId).add(id);
  }

  async function look(id: string, queue: WorkQueue): Promise<void> {
    try {
      await lookOnce(id);
    } catch (error) {
      log.error("reconciling failed, nothing can be written", { environment_id: id, error });
      queue.addAfter(id, UNWRITABLE_RETRY_MS);
    }
  }

  async function lookOnce(id: string): Promise<void> {
    const row = rows.byId(id);
    if (!row || row.tornDownAt !== null) return;
    try {
      const seen = await observe(row);
      if (!seen) return;
      const current = reachable(row);
      if (!current) return wake(id);
      await takeStep(seen.runtime, current, seen.observed);
    } catch (error) {
      retry(id, error);
    }
  }

  /**
   * Undefined where the cluster can't be asked: nothing is known then, and deadlines stand still. One that
   * answers and then does not do what it is told is no outage: time goes on.
   */
  async function observe(row: Environment): Promise<{ runtime: Runtime; observed: Observed } | undefined> {
    try {
      const runtime = options.runtimeOf(row.clusterId);
      return { runtime, observed: await runtime.observe(refOf(row)) };
    } catch (error) {
      if (!(error instanceof RuntimeUnreachable)) throw error;
      unreachable(row.id, error);
      return undefined;
    }
  }

  async function takeStep(runtime: Runtime, row: Environment, observed: Observed): Promise<void> {
    const step = nextStep(situation(row), observed, now(), deadlines);
    if ("generation" in observed && observed.generation === row.generation) options.collectLogs(row);
    const current = write(row, step);
    if (!current) return wake(row.id);
    if (step.act) await act(runtime, current, step.act);
    if (current.attempts > 0)
      db.update(environments).set({ attempts: 0 }).where(eq(environments.id, row.id)).run();
    if (step.lookAgainMs !== undefined) queueOf(row.clusterId).addAfter(row.id, step.lookAgainMs);
  }

  async function act(runtime: Runtime, row: Environment, what: NonNullable<Step["act"]>): Promise<void> {
    try {
      if (what === "ensure") {
        await runtime.ensure(rows.spec(row));
        keepApplied(row);
      } else if (what === "mend") await runtime.mend?.(rows.spec(row));
      else if (what === "stop") await runtime.stop(refOf(row));
      else await runtime.remove(refOf(row));
    } catch (error) {
      if (what === "ensure") explain(row, error);
      if (what !== "ensure" || !(error instanceof RuntimeRejected)) throw error;
    }
  }

  /** Tells the owner what keeps the containers from being made, and ends the attempt where it will not pass. */
  function explain(row: Environment, error: unknown): void {
    if (!(error instanceof RuntimeRejected || error instanceof RuntimeUnreachable)) return;
    const { message } = error;
    const end =
      error instanceof RuntimeRejected
        ? endedBy(situation(row), { kind: error.kind, message, sinceMs: row.statusSince }, now(), deadlines)
        : undefined;
    write(row, end ?? { become: { status: row.status, message, progress: row.progress } });
  }

  /** Containers are made of what `row` says; an edit that came meanwhile goes on waiting. */
  function keepApplied(row: Environment): void {
    const { resources, variables } = row;
    if (!row.restartRequired && Bun.deepEquals(row.appliedResources, resources)) return;
    inTransaction(db, (tx) => {
      const saved = rows.byId(row.id);
      const asApplied = saved && Bun.deepEquals(saved.variables, variables);
      // Resources that were changed meanwhile differ from these.
      save(tx, row, { appliedResources: resources, ...(asApplied ? { restartRequired: false } : {}) });
    });
  }

  function situation(row: Environment): Situation {
    return {
      ...row,
      // A look at all of the user's environments, which few steps ask for.
      get peersEnding() {
        return rows.peersEnding(row);
      },
    };
  }

  /** Writes what `step` says; undefined when a verb or another write came first. */
  function write(row: Environment, step: Step): Environment | undefined {
    if (step.tornDown) return finish(row);
    const to = step.become;
    if (!to) return row;
    const same = to.status === row.status;
    // Within one status progress never runs backwards: a second look may see less than the first.
    const progress = same ? Math.max(row.progress, to.progress) : to.progress;
    if (same && to.message === row.statusMessage && progress === row.progress) return row;
    if (!same) options.flushLogs(row.id);
    const at = now();
    const allowed = deadlineMs(to.status, deadlines);
    const changed = inTransaction(db, (tx) => {
      const after = save(tx, row, {
        status: to.status,
        statusMessage: to.message,
        progress,
        ...(same ? {} : { statusSince: at, deadlineAt: allowed === null ? null : at + allowed }),
        ...outcome(step),
        updatedAt: at,
      });
      // What is wrong around an environment that runs on comes and goes within one status.
      const isTold = !same || (to.status === "running" && to.message !== null);
      const note = after && isTold && noteOf(after);
      if (note) options.logSystem(tx, after, note);
      return after;
    });
    if (changed) announce(row, changed);
    return changed;
  }

  function finish(row: Environment): Environment {
    const gone = { ...row, tornDownAt: now() };
    db.update(environments).set({ tornDownAt: gone.tornDownAt }).where(eq(environments.id, row.id)).run();
    log.debug("environment torn down", { environment_id: row.id });
    options.tornDown(gone);
    return gone;
  }

  function announce(before: Environment, after: Environment): void {
    if (after.status !== before.status) {
      log.info("environment status", {
        environment_id: after.id,
        from: before.status,
        to: after.status,
        ...(after.statusMessage ? { reason: after.statusMessage } : {}),
      });
    }
    feed.publish(changeOf(before, after, now()));
  }

  /** The cluster has answered: a deadline stood still while it did not. Undefined as for `save`. */
  function reachable(row: Environment): Environment | undefined {
    if (row.unreachableSince === null) return row;
    const pausedMs = now() - row.unreachableSince;
    const back = save(db, row, {
      unreachableSince: null,
      deadlineAt: row.deadlineAt === null ? null : row.deadlineAt + pausedMs,
    });
    if (back) announce(row, back);
    return back;
  }

  function unreachable(id: string, error: RuntimeUnreachable): void {
    const row = rows.byId(id);
    if (!row) return;
    if (row.unreachableSince === null) {
      log.warn("cluster unreachable", {
        environment_id: id,
        cluster_id: row.clusterId,
        reason: error.message,
      });
      const since = { unreachableSince: now() };
      db.update(environments).set(since).where(eq(environments.id, id)).run();
      announce(row, { ...row, ...since });
    }
    countAttempt(row);
  }

  function retry(id: string, error: unknown): void {
    const row = rows.byId(id);
    if (!row) return;
    log.warn("reconciling failed, trying again", { environment_id: id, attempts: row.attempts + 1, error });
    countAttempt(row);
  }

  function countAttempt(row: Environment): void {
    const attempts = row.attempts + 1;
    db.update(environments).set({ attempts }).where(eq(environments.id, row.id)).run();
    queueOf(row.clusterId).addAfter(row.id, backoffMs(RETRY, attempts));
  }

  async function listen(runtime: Runtime): Promise<void> {
    for (let attempt = 1; !stopped.signal.aborted; attempt++) {
      try {
        for await (const ref of runtime.changes(stopped.signal)) {
          attempt = 0;
          wake(ref.environmentId);
        }
        return;
      } catch (error) {
        log.warn("watch ended, starting again", { error });
        await pause(backoffMs(RETRY, attempt), stopped.signal);
      }
    }
  }

  function lookAtAll(): void {
    for (const id of rows.unfinished()) wake(id);
  }

  return {
    wake(id) {
      if (started) wake(id);
    },
    start() {
      if (!started) renewDeadlines(db, deadlines, now());
      started = true;
      lookAtAll();
      resync ??= every(RESYNC_MS, lookAtAll, (error) => log.error("looking at everything failed", { error }));
    },
    follow: (runtime) => void listen(runtime),
    get depth() {
      return [...queues.values()].reduce((sum, queue) => sum + queue.depth, 0);
    },
    async stop(limitMs) {
      clearInterval(resync);
      stopped.abort();
      const lefts = await Promise.all([...queues.values()].map((queue) => queue.stop(limitMs)));
      const left = lefts.reduce((sum, count) => sum + count, 0);
      if (left > 0) log.warn("steps still running at stop", { count: left });
    },
  };
}

/** What the environment's own log says of a change. */
function noteOf({
  status,
  statusMessage,
  dockerImage,
  templateDisplayName,
}: Environment): SystemNote | undefined {
  switch (status) {
    case "provisioning": {
      const image = dockerImage ? ` (${dockerImage})` : "";
      return { message: `Starting ${templateDisplayName}${image}`, beginsInstallation: true };
    }
    case "running":
      return statusMessage === null
        ? { message: "The environment runs" }
        : { message: statusMessage, level: "ERROR" };
    case "restarting":
      return statusMessage === null ? undefined : { message: statusMessage, level: "ERROR" };
    case "stopped":
      return { message: "The environment has stopped" };
    case "error":
      return { message: statusMessage ?? "The environment failed", level: "ERROR" };
    case "creating":
    case "installing":
    case "configuring":
    case "stopping":
    case "terminated":
      return undefined;
  }
}

/** What else changes with a status. */
function outcome(step: Step): Partial<Environment> {
  const to = step.become;
  if (!to) return {};
  switch (to.status) {
    case "running":
      return { startedAt: to.startedAtMs ?? null, installationCompleted: true };
    case "installing":
    case "configuring":
      return { startedAt: to.startedAtMs ?? null };
    case "creating":
    case "provisioning":
      return { startedAt: null };
    case "restarting":
      return { startedAt: null, installationCompleted: false };
    case "stopping":
    case "stopped":
    case "error":
    case "terminated":
      return { startedAt: null };
  }
}

/** Writes to the row as it was read; undefined when a verb or another write came first. */
function save(db: DbOrTx, row: Environment, values: Partial<Environment>): Environment | undefined {
  return db
    .update(environments)
    .set(values)
    .where(
      and(
        eq(environments.id, row.id),
        eq(environments.status, row.status),
        eq(environments.generation, row.generation),
      ),
    )
    .returning()
    .get();
}
