import { and, eq } from "drizzle-orm";
import { type AuditActor, audit } from "../audit/audit.ts";
import type { Tx } from "../db/open.ts";
import { type EnvironmentStatus, environments } from "../db/schema.ts";
import { type AppError, invalidState } from "../errors.ts";
import { type Deadlines, deadlineMs, LIFECYCLE, statusesAllowing, VERBS, type Verb } from "./lifecycle.ts";
import type { Environment } from "./rows.ts";

/** The verbs that are answered in words. */
type SpokenVerb = Exclude<Verb, "suspend" | "delete">;

/** How each verb speaks: of what has begun, of its end, and of its failure. */
const WORDS: Record<SpokenVerb, { begun: string; done: string; failed: string }> = {
  start: {
    begun: "Environment start initiated",
    done: "Environment started successfully",
    failed: "Environment start failed",
  },
  stop: {
    begun: "Environment stop initiated",
    done: "Environment stopped successfully",
    failed: "Environment stop failed",
  },
  restart: {
    begun: "Environment restart initiated",
    done: "Environment restarted successfully",
    failed: "Environment restart failed",
  },
  recover: {
    begun: "Environment recovery initiated",
    done: "Environment recovered successfully",
    failed: "Environment recovery failed",
  },
};

const PARTICIPLES: Record<Verb, string> = {
  start: "started",
  stop: "stopped",
  restart: "restarted",
  recover: "recovered",
  suspend: "suspended",
  delete: "deleted",
};

/**
 * Writes what is wanted of an environment from now on and the status that begins with it, with the audit
 * row, in the caller's transaction. Calls no cluster: the reconciler is to be woken after the commit.
 *
 * @throws AppError invalid `invalid_state` when its status does not allow the verb
 */
export function applyVerb(
  tx: Tx,
  row: Environment,
  verb: Verb,
  {
    actor,
    reason,
    deadlines,
    now,
  }: { actor: AuditActor; reason?: string; deadlines: Deadlines; now: number },
): Environment {
  const status = LIFECYCLE[row.status].verbs[verb];
  if (!status) throw refused(verb, row.status);
  const allowed = deadlineMs(status, deadlines);
  const changed = tx
    .update(environments)
    .set({
      desired: VERBS[verb].desired,
      generation: row.generation + 1,
      status,
      statusMessage: reason ?? null,
      progress: 0,
      statusSince: now,
      deadlineAt: allowed === null ? null : now + allowed,
      unreachableSince: null,
      attempts: 0,
      deletionNotices: 0,
      deletionNoticeAt: null,
      installationCompleted: VERBS[verb].desired === "running" ? false : row.installationCompleted,
      updatedAt: now,
      ...(status === "terminated" ? { terminatedAt: now, startedAt: null } : {}),
    })
    .where(and(eq(environments.id, row.id), eq(environments.status, row.status)))
    .returning()
    .get();
  if (!changed) throw refused(verb, row.status);
  const detail = { from: row.status, to: status, ...(reason ? { reason } : {}) };
  audit(tx, actor, { action: `environment.${verb}`, targetId: row.id, detail }, now);
  return changed;
}

/**
 * What `verb`, which made `begun` of the environment, is answered with now that it is as `row` says. Never
 * claims what has not happened: done only when the end that was asked for is reached, and by this verb.
 */
export function answerTo(verb: SpokenVerb, begun: Environment, row: Environment): string {
  if (row.generation !== begun.generation) return WORDS[verb].begun;
  if (row.status === VERBS[verb].desired) return WORDS[verb].done;
  return row.status === "error" ? WORDS[verb].failed : WORDS[verb].begun;
}

function refused(verb: Verb, status: EnvironmentStatus): AppError {
  const [first = "", ...others] = statusesAllowing(verb);
  const last = others.pop();
  const allowed = last ? `${[first, ...others].join(", ")} or ${last}` : first;
  return invalidState(
    `Cannot ${verb} environment in current state`,
    `Environment must be ${allowed} to be ${PARTICIPLES[verb]}; it is ${status}`,
  );
}
