import { formatBytes, parseBytes } from "../../lib/quantity.ts";
import type { EnvironmentSpec } from "../runtime.ts";
import type { KubeClient } from "./api/client.ts";
import { FIELD_MANAGER } from "./api/client.ts";
import { isStatus, KubeStatusError } from "./api/errors.ts";
import type { Claim, Deployment, StorageClass } from "./api/objects.ts";
import { environmentPaths } from "./api/paths.ts";
import { environmentManifests } from "./manifests/manifests.ts";
import { environmentName, namespaceName } from "./names.ts";

interface StorageContext {
  client: KubeClient;
  serverId: string;
  now: () => number;
}

/**
 * How many bytes to ask for with an environment's claim. A claim that is there grows where its class allows
 * that, and never shrinks. Where it can't grow, the environment goes on with the size that it has, and an
 * event, which is a line in its log, says so.
 */
export async function storageToAsk(
  context: StorageContext,
  spec: EnvironmentSpec,
  claim: Claim | null,
): Promise<number> {
  const bytes = spec.resources.storageBytes;
  if (!claim) return bytes;
  const has = parseBytes(claim.spec.resources?.requests?.storage ?? "") ?? bytes;
  if (bytes <= has) return has;
  const refusal = await grow(context, spec, claim);
  if (refusal !== null) {
    await say(context, spec, {
      id: `storage.${spec.generation}`,
      reason: "StorageNotGrown",
      message: `The volume stays at ${formatBytes(has)}: ${refusal}`,
      claim,
    });
  }
  return refusal === null ? bytes : has;
}

/** Null when the claim now asks for more; else why it can't. */
async function grow(
  { client, serverId }: StorageContext,
  spec: EnvironmentSpec,
  claim: Claim,
): Promise<string | null> {
  const className = claim.spec.storageClassName ?? "";
  const found = className
    ? await client.get<StorageClass & { metadata: object }>(
        `/apis/storage.k8s.io/v1/storageclasses/${className}`,
      )
    : null;
  if (!found?.allowVolumeExpansion) return `storage class "${className}" can't grow volumes`;
  try {
    await client.apply(environmentPaths(spec).claim, environmentManifests(spec, serverId).claim);
    return null;
  } catch (error) {
    if (error instanceof KubeStatusError && (error.code === 403 || error.code === 422)) return error.message;
    throw error;
  }
}

/**
 * Tells of a new, empty volume in place of one that somebody has deleted: once for each state of the
 * Deployment, however often that is tried.
 */
export function sayThatItIsNew(
  context: StorageContext,
  spec: EnvironmentSpec,
  deployment: Deployment,
): Promise<void> {
  return say(context, spec, {
    id: `lost.${deployment.metadata.generation ?? 0}`,
    reason: "WorkspaceLost",
    message: "The workspace's volume was deleted in the cluster: a new, empty one is made",
  });
}

/** Once for each `id`: written anew, the event would be another line. */
async function say(
  { client, now }: StorageContext,
  spec: EnvironmentSpec,
  { id, reason, message, claim }: { id: string; reason: string; message: string; claim?: Claim },
): Promise<void> {
  const namespace = namespaceName(spec.userId);
  const time = new Date(now()).toISOString().replace(/\.\d+Z$/, "Z");
  const name = environmentName(spec.environmentId);
  const event = {
    apiVersion: "v1",
    kind: "Event",
    metadata: { name: `${name}.${id}`, namespace },
    involvedObject: {
      apiVersion: "v1",
      kind: "PersistentVolumeClaim",
      namespace,
      name,
      ...(claim?.metadata.uid ? { uid: claim.metadata.uid } : {}),
    },
    type: "Warning",
    reason,
    message,
    source: { component: FIELD_MANAGER },
    firstTimestamp: time,
    lastTimestamp: time,
    count: 1,
  };
  try {
    const query = { fieldManager: FIELD_MANAGER };
    await (await client.request("POST", environmentPaths(spec).events, { query, body: event })).text();
  } catch (error) {
    if (!isStatus(error, 409)) throw error;
  }
}
