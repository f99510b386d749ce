import type { EnvironmentRef, Remains } from "../runtime.ts";
import type { KubeClient } from "./api/client.ts";
import { isStatus } from "./api/errors.ts";
import type { KubeObject } from "./api/objects.ts";
import { allOf, type Kind, namespacePath, objectPath } from "./api/paths.ts";
import { refOf, selector, serverLabels, USER_LABEL } from "./names.ts";

/** Stands for the environment of a namespace in which there is none: a removal that was cut short. */
const NO_ENVIRONMENT = "none";

const KINDS = [
  "deployments",
  "pods",
  "persistentvolumeclaims",
  "services",
  "configmaps",
  "secrets",
] as const satisfies Kind[];

/** All objects in the cluster that carry our labels and an environment's, and users' namespaces without one. */
export async function listRemains(client: KubeClient, serverId: string): Promise<Remains[]> {
  const query = { labelSelector: selector(serverLabels(serverId)) };
  const [namespaces, ...lists] = await Promise.all([
    client.listMetadata("/api/v1/namespaces", query),
    ...KINDS.map(async (kind) => ({ kind, items: await labelled(client, kind, query) })),
  ]);
  const found = new Map<string, EnvironmentRef & { objects: string[] }>();
  for (const { kind, items } of lists) {
    for (const { metadata } of items) {
      const ref = refOf(metadata.labels);
      if (!ref) continue;
      const key = `${ref.environmentId}/${ref.userId}`;
      const remains = found.get(key) ?? { ...ref, objects: [] };
      remains.objects.push(objectPath(kind, metadata));
      found.set(key, remains);
    }
  }
  const users = new Set(Array.from(found.values(), ({ userId }) => userId));
  const empty = namespaces.items.flatMap(({ metadata }) => {
    const userId = metadata.labels?.[USER_LABEL];
    if (!userId || users.has(userId) || metadata.deletionTimestamp) return [];
    return [{ environmentId: NO_ENVIRONMENT, userId, objects: [namespacePath(metadata.name ?? "")] }];
  });
  return [...found.values(), ...empty];
}

async function labelled(
  client: KubeClient,
  kind: Kind,
  query: { labelSelector: string },
): Promise<KubeObject[]> {
  try {
    return (await client.listMetadata(allOf(kind), query)).items;
  } catch (error) {
    // A right that DevPocket does without, see permissions.ts. What it has made itself goes with its claim.
    if (kind === "secrets" && isStatus(error, 403)) return [];
    throw error;
  }
}
