import { existsSync } from "node:fs";
import { SYSTEM_ACTOR } from "../audit/audit.ts";
import type { Db } from "../db/open.ts";
import { AppError } from "../errors.ts";
import type { Logger } from "../lib/logger.ts";
import { createCluster, findCluster, updateCluster } from "./clusters.ts";
import { IN_CLUSTER, readKubeconfigFile } from "./kubeconfig.ts";
import { type Vault, VaultError } from "./vault.ts";

/** The names under which the server registers clusters by itself. */
const FROM_FILE = "default";
const FROM_POD = "in-cluster";

const SERVICE_ACCOUNT_TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount/token";
const TRY_AGAIN_MS = 30_000;

interface ConfiguredDeps {
  db: Db;
  vault: Vault;
  now: () => number;
  log: Logger;
  vet(reduced: string): Promise<void>;
  /** Called when a cluster has come or its kubeconfig has changed. */
  onChange(clusterId: string): void;
}

/**
 * Registers the cluster of `CLUSTER_KUBECONFIG_FILE`, or follows the file where it has changed. It is
 * registered also when it can't be reached now: the start does not wait for it, and the log says so.
 *
 * @throws AppError invalid, Error for a file that can't be used at all
 */
export function registerFromFile(deps: ConfiguredDeps, file: string): void {
  const reduced = readKubeconfigFile(file);
  register(deps, FROM_FILE, "From CLUSTER_KUBECONFIG_FILE", reduced);
  deps.vet(reduced).catch((error: unknown) => {
    const reason = reasonOf(error);
    deps.log.warn("the configured cluster can't be used yet", { cluster: FROM_FILE, reason });
  });
}

/**
 * Where the server runs in a pod: registers that cluster if the pod's service account may do what is
 * needed there, and tries again while the API server does not answer. A pod without such rights is an
 * ordinary place to run the server in.
 */
export async function registerFromPod(
  deps: ConfiguredDeps,
  { signal, tokenFile = SERVICE_ACCOUNT_TOKEN }: { signal: AbortSignal; tokenFile?: string },
): Promise<void> {
  if (!existsSync(tokenFile)) return;
  while (!signal.aborted) {
    try {
      await deps.vet(IN_CLUSTER);
      if (!signal.aborted) register(deps, FROM_POD, "The cluster that the server runs in", IN_CLUSTER);
      return;
    } catch (error) {
      // What is not the cluster's answer is a fault on this side: a full disk, for one.
      const passing = !(error instanceof AppError) || error.fields[0]?.code === "unreachable";
      deps.log.warn("the cluster that the server runs in is not registered", { reason: reasonOf(error) });
      if (!passing) return;
    }
    await sleep(TRY_AGAIN_MS, signal);
  }
}

function register(
  { db, vault, now, onChange }: ConfiguredDeps,
  name: string,
  description: string,
  reduced: string,
): void {
  const change = { db, vault, actor: SYSTEM_ACTOR, now: now() };
  const present = findCluster(db, name);
  if (present && holds(vault, present, reduced)) return;
  const row = present
    ? updateCluster(change, present.id, { kubeconfig: reduced })
    : createCluster(change, {
        name,
        description,
        provider: "kubernetes",
        region: "default",
        kubeconfig: reduced,
        status: "active",
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

function reasonOf(error: unknown): unknown {
  return error instanceof AppError ? error.message : error;
}

function sleep(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(done, ms);
    function done(): void {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      resolve();
    }
    signal.addEventListener("abort", done);
  });
}
