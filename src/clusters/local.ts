import { eq } from "drizzle-orm";
import type { Tx } from "../db/open.ts";
import { type CLUSTER_STATUSES, clusters, LOCAL_PROVIDER } from "../db/schema.ts";
import { newId } from "../lib/ids.ts";

/** Reserved even while the local runtime is switched off. */
export const LOCAL_CLUSTER_NAME = "local";

/** Makes the cluster that stands for the embedded runtime, where it is not there yet. */
export function ensureLocalCluster(tx: Tx, now: number): void {
  const present = tx
    .select({ id: clusters.id })
    .from(clusters)
    .where(eq(clusters.provider, LOCAL_PROVIDER))
    .get();
  if (present) return;
  tx.insert(clusters)
    .values({
      id: newId(now),
      name: LOCAL_CLUSTER_NAME,
      description: "Processes of the server's own host",
      provider: LOCAL_PROVIDER,
      region: "local",
      nodeCount: 1,
      createdAt: now,
      updatedAt: now,
    })
    .run();
}

/**
 * The status that counts: the local cluster is inactive while configuration switches it off, and is again
 * what an administrator made it when it is switched on.
 */
export function statusOf(
  cluster: { provider: string; status: (typeof CLUSTER_STATUSES)[number] },
  localEnabled: boolean,
): (typeof CLUSTER_STATUSES)[number] {
  return cluster.provider === LOCAL_PROVIDER && !localEnabled ? "inactive" : cluster.status;
}
