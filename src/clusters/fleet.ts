import { existsSync } from "node:fs";
import type { Guard } from "../auth/guard.ts";
import { type Config, ConfigError } from "../config/config.ts";
import { installationId } from "../db/installation.ts";
import { type Db, inTransaction } from "../db/open.ts";
import type { Router } from "../http/router.ts";
import type { Logger } from "../lib/logger.ts";
import { podRequests } from "../runtime/kubernetes/manifests/manifests.ts";
import { type Runtime, RuntimeUnreachable } from "../runtime/runtime.ts";
import { createCapacityBook } from "./capacity.ts";
import { type GivenUp, hasKubernetesClusters } from "./clusters.ts";
import { ensureLocalCluster } from "./local.ts";
import { createPlacement, type Place } from "./placement.ts";
import { createClusterRoutes } from "./routes.ts";
import { type ClusterRuntimes, createClusterRuntimes } from "./runtimes.ts";
import { createVault } from "./vault.ts";

/** Where Kubernetes puts the token of the service account of the pod that the server runs in. */
const SERVICE_ACCOUNT_TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount/token";

export interface FleetOptions {
  db: Db;
  config: Pick<Config, "localRuntime" | "clusterKubeconfigFile">;
  /** The first encrypts, all decrypt. */
  encryptionKeys: readonly Buffer[];
  guard: Pick<Guard, "requireAdmin" | "confirmAdmin">;
  /** Undefined: the embedded runtime is switched off, or not ready yet. */
  localRuntime(): Runtime | undefined;
  /** Told of every runtime when it comes to be. */
  onOpen(runtime: Runtime): void;
  /** Told when a cluster can't be reached any more, and when it can again. */
  onReachability(clusterId: string): void;
  /** Told of environments that ended with their cluster. */
  onEnvironmentsGivenUp(givenUp: GivenUp[]): void;
  log: Logger;
  now(): number;
  /** Aborts when the server stops. */
  stopping: AbortSignal;
}

/** All clusters of this server: their runtimes, what room they have, and who may register more. */
export interface Fleet {
  runtimes: ClusterRuntimes;
  place: Place;
  routers: Router[];
  /**
   * Registers what the configuration names and opens all runtimes.
   *
   * @throws ConfigError for a configured kubeconfig that can't be used at all
   */
  open(): Promise<void>;
  close(): Promise<void>;
}

export function createFleet(options: FleetOptions): Fleet {
  const { db, config, guard, log, now, stopping } = options;
  inTransaction(db, (tx) => ensureLocalCluster(tx, now()));
  const vault = createVault(options.encryptionKeys);
  const kubernetes = kubernetesLoader();
  const runtimes = createClusterRuntimes({
    db,
    vault,
    localRuntime: options.localRuntime,
    makeKubernetesRuntime: (kubeconfig) =>
      kubernetes.loaded().openKubernetesRuntime(kubeconfig, { log, now, serverId: installationId(db) }),
    onOpen: options.onOpen,
    log,
  });
  const { onReachability } = options;
  const capacity = createCapacityBook({ db, runtimeOf: runtimes.of, now, log, onReachability });
  const localEnabled = config.localRuntime;

  async function vet(kubeconfig: string): Promise<string> {
    await kubernetes.load();
    const { vetCluster } = await import("./vetting.ts");
    return vetCluster(kubeconfig);
  }

  function renew(clusterId: string): void {
    runtimes
      .renew(clusterId)
      .catch((error: unknown) => log.warn("cluster can't be used", { clusterId, error }));
  }

  async function registerConfigured(file: string | undefined, inPod: boolean): Promise<void> {
    const { registerFromFile, registerFromPod } = await import("./configured.ts");
    const deps = { db, vault, now, log, vet, onChange: renew, stopping };
    if (inPod) void registerFromPod(deps);
    if (file === undefined) return;
    try {
      registerFromFile(deps, file);
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      throw new ConfigError(`CLUSTER_KUBECONFIG_FILE=${file} can't be used: ${reason}`);
    }
  }

  return {
    runtimes,
    place: createPlacement({ capacity, localEnabled, requestsOf: podRequests }),
    routers: [
      createClusterRoutes({
        db,
        now,
        guard,
        vault,
        runtimes,
        capacity,
        localEnabled,
        vet,
        onEnvironmentsGivenUp: options.onEnvironmentsGivenUp,
      }),
    ],
    async open() {
      const file = config.clusterKubeconfigFile;
      const inPod = existsSync(SERVICE_ACCOUNT_TOKEN);
      if (file !== undefined || inPod || hasKubernetesClusters(db)) await kubernetes.load();
      if (file !== undefined || inPod) await registerConfigured(file, inPod);
      runtimes.openAll();
      capacity.start();
    },
    async close() {
      capacity.stop();
      await runtimes.close();
    },
  };
}

/** The client library is large: it is loaded when there is a cluster. */
function kubernetesLoader() {
  let module: typeof import("./kubernetes.ts") | undefined;
  return {
    async load() {
      module ??= await import("./kubernetes.ts");
    },
    loaded() {
      if (!module) throw new RuntimeUnreachable("The Kubernetes client is not loaded yet");
      return module;
    },
  };
}
