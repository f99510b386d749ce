import type { KubeConfig } from "@kubernetes/client-node";
import type { Logger } from "../../lib/logger.ts";
import { createHints } from "../hints.ts";
import { type EnvironmentRef, type Observed, type Runtime, RuntimeRejected } from "../runtime.ts";
import { createKubeClient } from "./api/client.ts";
import { type Connection, connectionOf } from "./api/connection.ts";
import { asReadError, asRuntimeError } from "./api/errors.ts";
import type { ExecTarget } from "./api/exec.ts";
import type { Pod } from "./api/objects.ts";
import { readCapacity } from "./capacity.ts";
import { readLogs } from "./logs/logs.ts";
import { createProgressTracker } from "./logs/progress.ts";
import { CONTAINER, refOf } from "./names.ts";
import { isOver, longestRunning, observe, type Sight } from "./observe.ts";
import { listRemains } from "./remains.ts";
import { createRemoval } from "./removal.ts";
import { listHeld, openHeld, resumeHeld } from "./terminals/held.ts";
import { BECOME_SHELL, openTerminal } from "./terminals/terminal.ts";
import { createUsageReader } from "./usage.ts";
import { createUserLocks, ensure, mend, stop, type VerbsContext } from "./verbs.ts";
import type { InformerLimits } from "./watch/informer.ts";
import { watchLingering } from "./watch/lingering.ts";
import { createLooking, type LookLimits } from "./watch/look.ts";
import { startMirror } from "./watch/mirror.ts";

/** Capacity counts every pod of the cluster: asked for by several at once or in a row, it is read once. */
const CAPACITY_FRESH_MS = 2_000;

export interface KubernetesRuntimeOptions {
  cluster: { kubeConfig: KubeConfig } | { connection: Connection };
  log: Logger;
  now?: () => number;
  /** A label's value that tells this DevPocket's objects from those of others in the same cluster. */
  serverId?: string;
  informer?: InformerLimits;
  look?: LookLimits;
}

/** Environments as pods of a Kubernetes cluster, 1.20 or newer. */
export function createKubernetesRuntime({
  cluster,
  log,
  now = Date.now,
  serverId = "default",
  informer,
  look,
}: KubernetesRuntimeOptions): Runtime {
  const connection = "connection" in cluster ? cluster.connection : connectionOf(cluster.kubeConfig, now);
  const client = createKubeClient(connection);
  const closed = new AbortController();
  const hints = createHints();
  const mirror = startMirror({
    client,
    serverId,
    hints,
    log,
    signal: closed.signal,
    ...(informer ? { limits: informer } : {}),
  });
  watchLingering({ client, mirror, hints, log, signal: closed.signal });
  const looking = createLooking({ client, mirror, serverId, ...(look ? { limits: look } : {}) });
  const progress = createProgressTracker(connection, hints, (pod) => refOf(pod.metadata.labels));
  const usage = createUsageReader(client, now);
  const { isolation } = mirror;
  const verbs: VerbsContext = { client, looking, isolation, serverId, now, log, userLock: createUserLocks() };
  const remove = createRemoval({ ...verbs, hints, signal: closed.signal });
  let capacity: { until: number; answer: ReturnType<typeof readCapacity> } | undefined;

  const targetOf = async (ref: EnvironmentRef) => {
    const pod = runningPod(await looking.look(ref));
    return (
      pod && { namespace: pod.metadata.namespace ?? "", pod: pod.metadata.name ?? "", container: CONTAINER }
    );
  };
  const placeOf = (target: ExecTarget, sessionId: string) => ({
    connection,
    target,
    sessionId,
    signal: closed.signal,
  });
  const seen = (sight: Sight) => observe(sight, { now: now(), progress: progress.of });

  return {
    observe: (ref) =>
      reading(async () => {
        const sight = await looking.look(ref);
        const observed = seen(sight);
        // What ends something is not said on the word of a watch that may be behind.
        if (sight.direct || !isDecisive(observed)) return observed;
        return seen(await looking.lookDirectly(ref));
      }),
    ensure: (spec) => changing(() => ensure(verbs, spec)),
    mend: (spec) => changing(() => mend(verbs, spec)),
    stop: (ref) => changing(() => stop(verbs, ref)),
    remove: (ref, found) => changing(() => remove(ref, found)),
    changes: (signal) => hints.listen(AbortSignal.any([signal, closed.signal])),
    openTerminal: (ref, options) =>
      reading(async () => {
        const target = await targetOf(ref);
        if (!target) throw new RuntimeRejected("rejected", "The environment does not run");
        const { sessionId } = options;
        const held = sessionId && (await openHeld(placeOf(target, sessionId), BECOME_SHELL, options));
        return held || openTerminal(connection, target, options, closed.signal);
      }),
    heldTerminals: (ref) =>
      reading(async () => {
        const target = await targetOf(ref);
        return target ? listHeld(connection, target) : [];
      }),
    heldTerminal: (ref, sessionId) =>
      reading(async () => {
        const target = await targetOf(ref);
        return target ? resumeHeld(placeOf(target, sessionId)) : null;
      }),
    async *logs(ref, { after, signal }) {
      const either = AbortSignal.any([signal, closed.signal]);
      try {
        yield* readLogs({ client, looking, mirror, hints }, ref, { after, signal: either });
      } catch (error) {
        throw asReadError(error);
      }
    },
    usage: (ref) =>
      reading(async () => {
        const sight = await looking.look(ref);
        const pod = runningPod(sight);
        return pod ? usage.read(pod, sight.claim) : null;
      }),
    capacity() {
      if (capacity && capacity.until > performance.now()) return capacity.answer;
      capacity = {
        until: performance.now() + CAPACITY_FRESH_MS,
        answer: reading(() => readCapacity(client)),
      };
      return capacity.answer;
    },
    list: () => reading(() => listRemains(client, serverId)),
    async close() {
      closed.abort();
      progress.close();
    },
  };
}

function isDecisive({ phase }: Observed): boolean {
  return phase === "absent" || phase === "stopped" || phase === "failed";
}

async function reading<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw asReadError(error);
  }
}

async function changing(work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    throw asRuntimeError(error);
  }
}

/** The pod that makes the environment running. */
function runningPod({ deployment, pods }: Sight): Pod | undefined {
  if (!deployment || deployment.spec.replicas === 0) return undefined;
  return longestRunning(pods.filter((pod) => !pod.metadata.deletionTimestamp && !isOver(pod)));
}
