import type { EnvironmentRef } from "../runtime.ts";
import type { KubeClient } from "./api/client.ts";
import type { Namespace } from "./api/objects.ts";
import { inNamespace, userPaths } from "./api/paths.ts";
import {
  ENVIRONMENT_LABEL,
  MANAGED_BY,
  MANAGED_BY_LABEL,
  namespaceName,
  SERVER_LABEL,
  selector,
  serverLabels,
} from "./names.ts";
import type { Sight } from "./observe.ts";

/** What the namespace of a user is who may have other environments in it than `ref`. */
export async function namespaceState(
  client: KubeClient,
  ref: EnvironmentRef,
  serverId: string,
): Promise<Sight["namespace"]> {
  const found = await client.get<Namespace>(userPaths(ref.userId).namespace);
  if (!found || !isOurs(found, serverId)) return "unknown";
  if (found.metadata.deletionTimestamp) return "ending";
  return (await hasOthers(client, ref, serverId)) ? "unknown" : "empty";
}

/** Deletes the user's namespace when no other environment has anything in it. */
export async function removeEmptyNamespace(
  client: KubeClient,
  ref: EnvironmentRef,
  serverId: string,
): Promise<void> {
  if (await hasOthers(client, ref, serverId)) return;
  const path = userPaths(ref.userId).namespace;
  const found = await client.get<Namespace>(path);
  if (!found || !isOurs(found, serverId) || found.metadata.deletionTimestamp) return;
  await client.delete(path, found.metadata.uid ? { uid: found.metadata.uid } : {});
}

function isOurs({ metadata: { labels } }: Namespace, serverId: string): boolean {
  return labels?.[MANAGED_BY_LABEL] === MANAGED_BY && labels[SERVER_LABEL] === serverId;
}

async function hasOthers(client: KubeClient, ref: EnvironmentRef, serverId: string): Promise<boolean> {
  const namespace = namespaceName(ref.userId);
  const query = {
    labelSelector: `${selector(serverLabels(serverId))},${ENVIRONMENT_LABEL}!=${ref.environmentId},${ENVIRONMENT_LABEL}`,
    limit: 1,
  };
  const kinds = ["deployments", "persistentvolumeclaims"] as const;
  const lists = await Promise.all(kinds.map((kind) => client.list(inNamespace(namespace, kind), query)));
  return lists.some((list) => list.items.length > 0);
}
