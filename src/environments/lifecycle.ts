import type { DesiredState, EnvironmentStatus } from "../db/schema.ts";
import type { Observed, Problem } from "../runtime/runtime.ts";

/*
 * The life of an environment, as one table and one pure function. Nothing here reads a clock, a database
 * or a cluster.
 */

/** What may be asked of an environment. `suspend` is DevPocket's own: the owner was deactivated. */
export const VERBS = {
  start: { desired: "running" },
  stop: { desired: "stopped" },
  restart: { desired: "running" },
  recover: { desired: "running" },
  suspend: { desired: "stopped" },
  delete: { desired: "terminated" },
} as const satisfies Record<string, { desired: DesiredState }>;

export type Verb = keyof typeof VERBS;

interface Status {
  /** `passing` ends by itself or by its deadline; `settled` stays until a verb or the world changes it. */
  kind: "passing" | "settled";
  /** Where each verb leads from here; a verb that is not named is refused. */
  verbs: Partial<Record<Verb, EnvironmentStatus>>;
  /** Where the reconciler may lead from here. */
  leads: readonly EnvironmentStatus[];
}

const GETTING_ON: Partial<Record<Verb, EnvironmentStatus>> = { suspend: "stopping", delete: "terminated" };

/** The one table of transitions: the guard, the tests, the documentation and the API's enum are made from it. */
export const LIFECYCLE: Record<EnvironmentStatus, Status> = {
  creating: {
    kind: "passing",
    verbs: GETTING_ON,
    leads: ["provisioning", "installing", "configuring", "running", "error"],
  },
  provisioning: {
    kind: "passing",
    verbs: GETTING_ON,
    leads: ["installing", "configuring", "running", "error"],
  },
  installing: {
    kind: "passing",
    verbs: GETTING_ON,
    leads: ["provisioning", "configuring", "running", "error"],
  },
  configuring: {
    kind: "passing",
    verbs: GETTING_ON,
    leads: ["provisioning", "installing", "running", "error"],
  },
  running: {
    kind: "settled",
    verbs: { stop: "stopping", restart: "restarting", suspend: "stopping", delete: "terminated" },
    leads: ["restarting", "error"],
  },
  stopping: { kind: "passing", verbs: { delete: "terminated" }, leads: ["stopped", "error"] },
  stopped: {
    kind: "settled",
    verbs: { start: "creating", restart: "restarting", delete: "terminated" },
    leads: [],
  },
  restarting: {
    kind: "passing",
    verbs: GETTING_ON,
    leads: ["provisioning", "installing", "configuring", "running", "error"],
  },
  error: {
    kind: "settled",
    verbs: { recover: "creating", restart: "restarting", delete: "terminated" },
    leads: [],
  },
  terminated: { kind: "settled", verbs: {}, leads: [] },
};

export function isSettled(status: EnvironmentStatus): boolean {
  return LIFECYCLE[status].kind === "settled";
}

/** Statuses from which `verb` is allowed. */
export function statusesAllowing(verb: Verb): EnvironmentStatus[] {
  return (Object.keys(LIFECYCLE) as EnvironmentStatus[]).filter((status) => LIFECYCLE[status].verbs[verb]);
}

/** How long, in milliseconds, what passes may take. */
export interface Deadlines {
  provisioningMs: number;
  imagePullMs: number;
  unschedulableMs: number;
  installingMs: number;
  stoppingMs: number;
}

/** How long `status` may last; null for a settled one. */
export function deadlineMs(status: EnvironmentStatus, deadlines: Deadlines): number | null {
  switch (status) {
    case "creating":
    case "provisioning":
    case "configuring":
    case "restarting":
      return deadlines.provisioningMs;
    case "installing":
      return deadlines.installingMs;
    case "stopping":
      return deadlines.stoppingMs;
    case "running":
    case "stopped":
    case "error":
    case "terminated":
      return null;
  }
}

/** What of an environment's row decides on its next step. */
export interface Situation {
  status: EnvironmentStatus;
  statusMessage: string | null;
  desired: DesiredState;
  generation: number;
  /** Milliseconds since the epoch. */
  deadlineAt: number | null;
  tornDownAt: number | null;
  /** Something else of the same user is being torn down: a refusal for quota will pass. */
  peersEnding: boolean;
}

/** What to write, then what to do, then when to look again if nothing calls before. All absent: at rest. */
export interface Step {
  become?: { status: EnvironmentStatus; message: string | null; progress: number; startedAtMs?: number };
  tornDown?: true;
  act?: "ensure" | "mend" | "stop" | "remove";
  lookAgainMs?: number;
}

/** Until an act is repeated that has not brought about its end; the runtime's hints are usually faster. */
const REPEAT_MS = 3000;
/**
 * A quota that counts what has just gone, or a namespace that is being deleted: so long it may take a
 * cluster to come to itself, though nobody of whom we know makes room.
 */
const ROOM_MS = 30_000;
/** Until something is looked at again of which the runtime tells by itself, in case it has not. */
const SAFETY_MS = 15_000;
const STOPPED_BY_HAND = "Somebody has stopped it in the cluster; it is started again";

/** What somebody has changed around containers that run on. */
const MEND = { act: "mend", lookAgainMs: REPEAT_MS } as const;

/** The next step towards what is wanted. Deterministic; safe to take twice. */
export function nextStep(at: Situation, observed: Observed, now: number, deadlines: Deadlines): Step {
  switch (at.desired) {
    case "terminated":
      return terminate(at, observed);
    case "stopped":
      return comeToRest(at, observed, now);
    case "running":
      return at.status === "error" ? release(observed) : getRunning(at, observed, now, deadlines);
  }
}

function terminate(at: Situation, observed: Observed): Step {
  if (at.tornDownAt !== null) return {};
  if (observed.phase === "absent") return { tornDown: true };
  return { act: "remove", lookAgainMs: REPEAT_MS };
}

function comeToRest(at: Situation, observed: Observed, now: number): Step {
  const atRest = observed.phase === "absent" || observed.phase === "stopped";
  if (at.status !== "stopping") return atRest ? {} : { act: "stop", lookAgainMs: REPEAT_MS };
  // Why it was stopped can still be read where it was not the owner who did it.
  if (atRest) return { become: { status: "stopped", message: at.statusMessage, progress: 0 } };
  if (isPast(at.deadlineAt, now)) {
    return fail("The environment did not stop in time; recover or delete it");
  }
  return { act: "stop", lookAgainMs: REPEAT_MS };
}

/** An environment in error holds its workspace, but no processes. */
function release(observed: Observed): Step {
  if (observed.phase === "absent" || observed.phase === "stopped") return {};
  return { act: "stop", lookAgainMs: REPEAT_MS };
}

function getRunning(at: Situation, observed: Observed, now: number, deadlines: Deadlines): Step {
  const seen = "generation" in observed && observed.generation === at.generation ? observed : null;
  if (seen?.phase === "running") {
    const { problem, startedAtMs } = seen;
    if (at.status === "running" && at.statusMessage === null && !problem) return {};
    return {
      become: { status: "running", message: problem?.message ?? null, progress: 100, startedAtMs },
      ...(problem ? MEND : {}),
    };
  }
  if (seen?.phase === "failed") return endedBy(at, seen.problem, now, deadlines) ?? wait(at, now);
  const problem = seen?.phase === "provisioning" ? seen.problem : undefined;
  const byHand = isStoppedByHand(at, observed)
    ? STOPPED_BY_HAND
    : problem?.kind === "altered"
      ? problem.message
      : null;
  if (at.status === "running") {
    const message = byHand ?? "The environment's processes are gone; starting them again";
    return { become: { status: "restarting", message, progress: 0 }, lookAgainMs: 0 };
  }
  const failure = problem && endedBy(at, problem, now, deadlines);
  if (failure) return failure;
  if (isPast(at.deadlineAt, now)) return fail(problem?.message ?? tookTooLong(at, seen));
  if (seen === null) {
    const again = { act: "ensure", lookAgainMs: REPEAT_MS } as const;
    if (at.status === "provisioning" && !byHand) return again;
    const message = byHand ?? "Preparing the workspace";
    return { become: { status: "provisioning", message, progress: 5 }, ...again };
  }
  switch (seen.phase) {
    case "provisioning":
      return {
        become: { status: "provisioning", message: problem?.message ?? seen.message, progress: 15 },
        // Nothing tells when a quota has room again or a namespace is gone: ensure asks.
        ...(problem && (isWantOfRoom(problem) || isUndone(problem))
          ? { act: "ensure", lookAgainMs: REPEAT_MS }
          : wait(at, now, problem && problem.sinceMs + patienceMs(problem, deadlines))),
      };
    case "installing":
      return {
        become: {
          status: "installing",
          message: seen.message,
          progress: installationProgress(seen.step, seen.steps),
          startedAtMs: seen.startedAtMs,
        },
        ...(seen.problem ? MEND : wait(at, now)),
      };
    case "configuring":
      return {
        become: {
          status: "configuring",
          message: "Getting ready",
          progress: 95,
          startedAtMs: seen.startedAtMs,
        },
        ...(seen.problem ? MEND : wait(at, now)),
      };
  }
}

/** The step that ends an attempt because of `problem`; undefined while it may still pass. */
export function endedBy(
  at: Situation,
  problem: Problem,
  now: number,
  deadlines: Deadlines,
): Step | undefined {
  const stood = now - problem.sinceMs;
  const mayPass = stood < patienceMs(problem, deadlines) || (isWantOfRoom(problem) && at.peersEnding);
  return mayPass && !isPast(at.deadlineAt, now) ? undefined : fail(problem.message);
}

/** Somebody has undone what `ensure` does. */
function isUndone({ kind }: Problem): boolean {
  return kind === "missing" || kind === "altered";
}

/** Our own stop comes with another generation, or with an error. */
function isStoppedByHand({ generation }: Situation, observed: Observed): boolean {
  const isStopped = observed.phase === "stopped" || observed.phase === "stopping";
  return isStopped && observed.lastGeneration === generation;
}

function isWantOfRoom({ kind }: Problem): boolean {
  return kind === "quota" || kind === "ending";
}

/** How long a problem may stand before it is the end. */
function patienceMs({ kind }: Problem, deadlines: Deadlines): number {
  switch (kind) {
    case "image_pull":
      return deadlines.imagePullMs;
    case "unschedulable":
      return deadlines.unschedulableMs;
    case "quota":
    case "ending":
      return ROOM_MS;
    case "missing":
    case "altered":
      // It is made again; what that takes is up to the cluster, until the deadline of the whole.
      return Number.POSITIVE_INFINITY;
    case "command_failed":
    case "crashed":
    case "out_of_memory":
    case "rejected":
      return 0;
  }
}

function fail(message: string): Step {
  return { become: { status: "error", message, progress: 0 }, act: "stop", lookAgainMs: REPEAT_MS };
}

/**
 * What is seen to be waited for is the reason; where nothing of it was ever seen, what was last said tells
 * what keeps the runtime from making it.
 */
function tookTooLong({ status, statusMessage }: Situation, seen: Observed | null): string {
  const waitsFor = seen?.phase === "provisioning" ? seen.message : null;
  const reason = seen === null ? statusMessage : waitsFor;
  return `Gave up: ${status} took too long${reason ? `: ${reason}` : ""}`;
}

/** At rest until the runtime tells of a change, at the latest when a deadline ends. */
function wait(at: Situation, now: number, endsAt = Number.POSITIVE_INFINITY): Step {
  const next = Math.min(now + SAFETY_MS, at.deadlineAt ?? endsAt, endsAt);
  return { lookAgainMs: Math.max(0, next - now) };
}

function isPast(deadlineAt: number | null, now: number): boolean {
  return deadlineAt !== null && now >= deadlineAt;
}

/** 20 to 90 percent, by commands begun. */
function installationProgress(step: number, steps: number): number {
  return 20 + Math.floor((70 * Math.max(0, step - 1)) / Math.max(1, steps));
}
