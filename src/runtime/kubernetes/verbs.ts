import type { Logger } from "../../lib/logger.ts";
import { Semaphore } from "../../lib/semaphore.ts";
import { type EnvironmentRef, type EnvironmentSpec, RuntimeRejected } from "../runtime.ts";
import { FIELD_MANAGER, type KubeClient } from "./api/client.ts";
import { isStatus } from "./api/errors.ts";
import type { Claim, Deployment, Manifest, Namespace, Restriction } from "./api/objects.ts";
import { environmentPaths, objectPath, userPaths } from "./api/paths.ts";
import { environmentManifests } from "./manifests/manifests.ts";
import { userManifests } from "./manifests/usermanifests.ts";
import { inExcess } from "./observe.ts";
import { sayThatItIsNew, storageToAsk } from "./storage.ts";
import { forceStuck } from "./stuck.ts";
import { givenBack, type Isolation, type RestrictionKind } from "./watch/isolation.ts";
import type { Looking } from "./watch/look.ts";

export interface VerbsContext {
  client: KubeClient;
  looking: Looking;
  isolation: Isolation;
  serverId: string;
  now: () => number;
  log: Logger;
  /** One change at a time to what a user has in common: a namespace is deleted with its last environment. */
  userLock(userId: string): Semaphore;
}

export function createUserLocks(): (userId: string) => Semaphore {
  // A few dozen bytes for each user that was ever active since the start.
  const locks = new Map<string, Semaphore>();
  return (userId) => {
    const lock = locks.get(userId) ?? new Semaphore(1);
    locks.set(userId, lock);
    return lock;
  };
}

export async function ensure(context: VerbsContext, spec: EnvironmentSpec): Promise<void> {
  const { client, looking, serverId } = context;
  const paths = environmentPaths(spec);
  await context.userLock(spec.userId).run(async () => {
    await ensureUser(context, spec);
    const claim = await client.get<Claim>(paths.claim);
    if (claim?.metadata.deletionTimestamp) {
      // It stays for as long as a pod uses it.
      await stop(context, spec);
      throw volumeDeleted();
    }
    const before = claim ? null : await client.get<Deployment>(paths.deployment);
    if (before) await sayThatItIsNew(context, spec, before);
    const storageBytes = await storageToAsk(context, spec, claim);
    const {
      claim: wanted,
      configMap,
      secret,
      service,
      deployment,
    } = environmentManifests(spec, serverId, storageBytes);
    // Alone and first: where the quota refuses it, nothing else has been made.
    const made = claim ?? (await client.apply<Claim>(paths.claim, wanted));
    await allEnded([
      client.apply(paths.configMap, ownedBy(made, configMap)),
      client.apply(paths.secret, ownedBy(made, secret)),
      client.apply(paths.service, ownedBy(made, service)),
    ]);
    looking.wrote(spec, await applyDeployment(client, paths.deployment, deployment));
  });
}

/**
 * With the claim, whoever deletes it, the cluster itself deletes what is `ownedBy` it, also what comes to be
 * after it: a request that the API server has only now got to.
 */
function ownedBy({ metadata: { name = "", uid = "" } }: Claim, manifest: Manifest): Manifest {
  const ownerReferences = [{ apiVersion: "v1", kind: "PersistentVolumeClaim", name, uid }];
  return { ...manifest, metadata: { ...manifest.metadata, ownerReferences } };
}

async function applyDeployment(client: KubeClient, path: string, manifest: Manifest): Promise<Deployment> {
  try {
    return await client.apply<Deployment>(path, manifest);
  } catch (error) {
    // What somebody has added may contradict what is applied, as the limits of a rolling update do.
    if (!isStatus(error, 422) || !(await client.get<Deployment>(path))) throw error;
    await replaceSpec<Deployment>(client, path, manifest);
    return await client.apply<Deployment>(path, manifest);
  }
}

/** Leaves nothing of what others have set in it: `apply` keeps whatever the manifest does not name. */
function replaceSpec<T>(client: KubeClient, path: string, { spec }: Manifest): Promise<T> {
  return client.requestJson<T>("PATCH", path, {
    query: { fieldManager: FIELD_MANAGER },
    contentType: "application/json-patch+json",
    body: [{ op: "replace", path: "/spec", value: spec }],
  });
}

/** Restores what the user has in common, and one pod where there are more. */
export async function mend(context: VerbsContext, spec: EnvironmentSpec): Promise<void> {
  const { client, looking } = context;
  const path = environmentPaths(spec).deployment;
  await context.userLock(spec.userId).run(() => ensureUser(context, spec));
  // Kubernetes may take the one with the user's terminals: pods whose ages have the same power of two are equal to it.
  for (const { metadata } of inExcess(await looking.lookDirectly(spec))) {
    await client.delete(objectPath("pods", metadata), metadata.uid ? { uid: metadata.uid } : {});
  }
  // Read anew: its status has changed with its pods, and with that its version.
  const deployment = await client.get<Deployment>(path);
  if (!deployment || (deployment.spec.replicas ?? 1) <= 1) return;
  const { resourceVersion } = deployment.metadata;
  looking.wrote(spec, await scale(client, path, { replicas: 1, resourceVersion }));
}

/** @param resourceVersion where given, of what is scaled: what has changed since is left as it is */
function scale(
  client: KubeClient,
  path: string,
  { replicas, resourceVersion }: { replicas: number; resourceVersion?: string | undefined },
): Promise<Deployment> {
  return client.requestJson<Deployment>("PATCH", path, {
    query: { fieldManager: FIELD_MANAGER },
    contentType: "application/merge-patch+json",
    body: { ...(resourceVersion ? { metadata: { resourceVersion } } : {}), spec: { replicas } },
  });
}

async function ensureUser(context: VerbsContext, spec: EnvironmentSpec): Promise<void> {
  const { client, serverId, isolation } = context;
  const paths = userPaths(spec.userId);
  const manifests = userManifests(spec.userId, spec.userQuota, serverId);
  const namespace = await client.apply<Namespace>(paths.namespace, manifests.namespace);
  if (namespace.status?.phase === "Terminating") throw ending();
  await allEnded([
    client.apply(paths.serviceAccount, manifests.serviceAccount),
    restrict(context, spec.userId, "limitranges", paths.limitRange, manifests.limitRange),
    restrict(context, spec.userId, "networkpolicies", paths.networkPolicy, manifests.networkPolicy),
    manifests.quota
      ? restrict(context, spec.userId, "resourcequotas", paths.quota, manifests.quota)
      : client.delete(paths.quota).then(() => isolation.wrote(spec.userId, "resourcequotas", null)),
  ]);
}

async function restrict(
  { client, isolation }: VerbsContext,
  userId: string,
  kind: RestrictionKind,
  path: string,
  manifest: Manifest,
): Promise<void> {
  let applied = await client.apply<Restriction>(path, manifest);
  // What somebody has added stays where the API server sees it as theirs: a policy then holds for fewer pods.
  if (kind === "networkpolicies" && !Bun.deepEquals(applied.spec, givenBack(manifest))) {
    applied = await replaceSpec<Restriction>(client, path, manifest);
  }
  isolation.wrote(userId, kind, applied);
}

/**
 * Resolves or rejects when each of `writes` has ended: the lock is free then, and one that is still on its
 * way would come after the removal of what it writes.
 */
async function allEnded(writes: Promise<unknown>[]): Promise<void> {
  const failed = (await Promise.allSettled(writes)).find(({ status }) => status === "rejected");
  if (failed?.status === "rejected") throw failed.reason;
}

function ending(): RuntimeRejected {
  return new RuntimeRejected("ending", "Waiting for what was deleted before to be gone");
}

function volumeDeleted(): RuntimeRejected {
  const message =
    "The workspace's volume was deleted in the cluster; once it is gone, a new, empty one is made";
  return new RuntimeRejected("missing", message);
}

/** Scales to zero; the claim stays. */
export async function stop(context: VerbsContext, ref: EnvironmentRef): Promise<void> {
  const { client, looking } = context;
  try {
    looking.wrote(ref, await scale(client, environmentPaths(ref).deployment, { replicas: 0 }));
  } catch (error) {
    if (!isStatus(error, 404)) throw error;
  }
  const { pods } = await looking.look(ref);
  await forceStuck(context, ref, pods);
}
