import { createBell } from "../../lib/bell.ts";
import type { Hints } from "../hints.ts";
import type { EnvironmentRef, Runtime } from "../runtime.ts";
import type { Pod } from "./api/objects.ts";
import { environmentPaths, objectPath, userPaths } from "./api/paths.ts";
import { removeEmptyNamespace } from "./namespaces.ts";
import type { Sight } from "./observe.ts";
import { forceStuck } from "./stuck.ts";
import type { VerbsContext } from "./verbs.ts";

const LOOK_AGAIN_MS = 1_000;
/**
 * How long the cluster's garbage collector has for the pods of a Deployment that is gone. Before it has the
 * ReplicaSet between them, every pod that is deleted is made again.
 */
const COLLECTION_MS = 5_000;
/** Whoever wants it gone asks again and again; this only bounds what one question sets going. */
const FINISH_LIMIT_MS = 300_000;

interface RemovalContext extends VerbsContext {
  hints: Hints;
  signal: AbortSignal;
}

/** Deletes all that there is of an environment, and the user's namespace when it is then empty. */
export function createRemoval(context: RemovalContext): Runtime["remove"] {
  const finishing = new Set<string>();
  return async (ref, found = []) => {
    await deleteObjects(context, ref, found);
    const deletedAt = performance.now();
    if (await finishIfGone(context, ref, deletedAt)) return;
    const id = ref.environmentId;
    if (finishing.has(id)) return;
    finishing.add(id);
    void finish(context, ref, deletedAt)
      .catch((error: unknown) => context.log.debug("a removal goes on at the next look", { ...ref, error }))
      .finally(() => finishing.delete(id));
  };
}

async function deleteObjects(
  { client, looking, userLock }: RemovalContext,
  ref: EnvironmentRef,
  found: readonly string[],
): Promise<void> {
  const { deployment, claim, service, configMap, secret } = environmentPaths(ref);
  // A namespace is deleted only when it is seen to be empty.
  const others = found.filter((path) => path !== userPaths(ref.userId).namespace);
  const deleteAll = (paths: string[]) => Promise.all(paths.map((path) => client.delete(path)));
  looking.deleted(ref);
  await userLock(ref.userId).run(async () => {
    // The Deployment and the claim are what an environment is known by: they go last.
    await deleteAll([service, configMap, secret]);
    await deleteAll([deployment, claim, ...others]);
  });
}

async function finish(context: RemovalContext, ref: EnvironmentRef, deletedAt: number): Promise<void> {
  const bell = createBell();
  const off = context.hints.on(({ environmentId }) => {
    if (environmentId === ref.environmentId) bell.ring();
  });
  const end = performance.now() + FINISH_LIMIT_MS;
  try {
    while (!context.signal.aborted && performance.now() < end) {
      await bell.wait(LOOK_AGAIN_MS, context.signal);
      if (await finishIfGone(context, ref, deletedAt)) return;
    }
  } finally {
    off();
  }
}

/**
 * Whether nothing is left of the environment itself. A namespace is deleted only when it is empty: with
 * pods in it that end in their own time, its deletion is tried at ever longer intervals and takes minutes.
 */
async function finishIfGone(
  context: RemovalContext,
  ref: EnvironmentRef,
  deletedAt: number,
): Promise<boolean> {
  const sight = await context.looking.lookDirectly(ref);
  if (!isGone(sight)) {
    if (!sight.deployment) await hurry(context, ref, sight.pods, deletedAt);
    return false;
  }
  if (sight.namespace !== "empty") return true;
  const { client, serverId, userLock } = context;
  // An environment that is being made at this moment has its claim before the lock is free.
  await userLock(ref.userId).run(() => removeEmptyNamespace(client, ref, serverId));
  return true;
}

function isGone({ deployment, claim, pods }: Sight): boolean {
  return !deployment && !claim && pods.length === 0;
}

/** Pods whose Deployment is gone may wait long for the cluster's garbage collector, or for ever for their node. */
async function hurry(
  context: RemovalContext,
  ref: EnvironmentRef,
  pods: Pod[],
  deletedAt: number,
): Promise<void> {
  if (performance.now() - deletedAt > COLLECTION_MS) {
    const orphans = pods.filter((pod) => !pod.metadata.deletionTimestamp);
    await Promise.all(orphans.map((pod) => context.client.delete(objectPath("pods", pod.metadata))));
  }
  await forceStuck(context, ref, pods);
}
