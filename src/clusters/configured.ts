import { SYSTEM_ACTOR } from "../audit/audit.ts";
import type { Db } from "../db/open.ts";
import type { ClusterOrigin } from "../db/schema.ts";
import { AppError } from "../errors.ts";
import type { Logger } from "../lib/logger.ts";
import { pause } from "../lib/pause.ts";
import {
  type ClusterAccess,
  createCluster,
  findOwnCluster,
  identifyCluster,
  livingOn,
  updateCluster,
} from "./clusters.ts";
import { IN_CLUSTER, readKubeconfigFile } from "./kubeconfig.ts";
import { type Vault, VaultError } from "./vault.ts";

/** The first name of each cluster that the server registers by itself. */
const OWN: Record<ClusterOrigin, { name: string; description: string }> = {
  file: { name: "default", description: "From CLUSTER_KUBECONFIG_FILE" },
  pod: { name: "in-cluster", description: "The cluster that the server runs in" },
};

const TRY_AGAIN_MS = 30_000;

interface ConfiguredDeps {
  db: Db;
  vault: Vault;
  now: () => number;
  log: Logger;
  /** The cluster's UID. @throws AppError invalid for a cluster that can't be used */
  vet(reduced: string): Promise<string>;
  /** Called when a cluster has come or its kubeconfig has changed. */
  onChange(clusterId: string): void;
  /** Aborts when the server stops. */
  stopping: AbortSignal;
}

/**
 * Registers the cluster of `CLUSTER_KUBECONFIG_FILE`, or follows the file where it has changed. It is
 * registered also when it can't be reached now: the start does not wait for it, and the log says so. Where
 * environments live, a new file counts only when it is known to lead to the same cluster.
 *
 * @throws AppError invalid, conflict (another cluster has the name); Error for a file that can't be used
 */
export function registerFromFile(deps: ConfiguredDeps, file: string): void {
  const kubeconfig = readKubeconfigFile(file);
  const present = findOwnCluster(deps.db, "file");
  if (!present || livingOn(deps.db, present.id).length === 0) {
    register(deps, "file", { kubeconfig, uid: null });
  }
  void registerVetted(deps, "file", kubeconfig);
}

/**
 * For a server that runs in a pod: registers that cluster if the pod's service account may do what is
 * needed there. A pod without such rights is an ordinary place to run the server in.
 */
export async function registerFromPod(deps: ConfiguredDeps): Promise<void> {
  await registerVetted(deps, "pod", IN_CLUSTER);
}

/** Registers a cluster once it has answered and is fit; tries again while it does not. Never rejects. */
async function registerVetted(
  deps: ConfiguredDeps,
  origin: ClusterOrigin,
  kubeconfig: string,
): Promise<void> {
  const { stopping, log } = deps;
  while (!stopping.aborted) {
    try {
      const uid = await deps.vet(kubeconfig);
      if (!stopping.aborted) register(deps, origin, { kubeconfig, uid });
      return;
    } catch (error) {
      // What is not the cluster's answer is a fault on this side: a full disk, for one.
      const passing = !(error instanceof AppError) || error.fields[0]?.code === "unreachable";
      const reason = error instanceof AppError ? error.message : error;
      log.warn("a configured cluster can't be used", { cluster: OWN[origin].name, reason });
      if (!passing) return;
    }
    await pause(TRY_AGAIN_MS, stopping);
  }
}

/** @throws AppError conflict, see `createCluster` and `updateCluster` */
function register(
  { db, vault, now, onChange }: ConfiguredDeps,
  origin: ClusterOrigin,
  access: ClusterAccess,
): void {
  const change = { db, vault, actor: SYSTEM_ACTOR, now: now() };
  const present = findOwnCluster(db, origin);
  if (present && holds(vault, present, access.kubeconfig)) {
    if (access.uid !== null) identifyCluster(db, present.id, access.uid);
    return;
  }
  const row = present
    ? updateCluster(change, present.id, { access })
    : createCluster(change, {
        ...OWN[origin],
        provider: "kubernetes",
        region: "default",
        access,
        status: "active",
        origin,
      });
  onChange(row.id);
}

function holds(vault: Vault, cluster: { id: string; kubeconfig: string | null }, reduced: string): boolean {
  if (cluster.kubeconfig === null) return false;
  try {
    return vault.open(cluster.kubeconfig, cluster.id) === reduced;
  } catch (error) {
    // Sealed with a key that is gone: the file has the kubeconfig still.
    if (error instanceof VaultError) return false;
    throw error;
  }
}
