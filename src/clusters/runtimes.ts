import { eq, sql } from "drizzle-orm";
import type { Db } from "../db/open.ts";
import { clusters, LOCAL_PROVIDER } from "../db/schema.ts";
import type { Logger } from "../lib/logger.ts";
import { type Runtime, RuntimeUnreachable } from "../runtime/runtime.ts";
import type { Vault } from "./vault.ts";

interface ClusterRuntimesOptions {
  db: Db;
  vault: Vault;
  /** Undefined: the local runtime is switched off, or not ready yet. */
  localRuntime(): Runtime | undefined;
  /** Makes the runtime of a cluster; must not wait for it. */
  makeKubernetesRuntime(kubeconfig: string, cluster: { id: string; name: string }): Runtime;
  /** Told of every runtime when it comes to be: whoever follows its changes begins here. */
  onOpen(runtime: Runtime, clusterId: string): void;
  log: Logger;
}

/** The runtime of each registered cluster, made when it is first asked for. */
export interface ClusterRuntimes {
  /** @throws RuntimeUnreachable for a cluster that is not there or whose kubeconfig can't be used */
  of(clusterId: string): Runtime;
  /** Opens the runtimes of all registered clusters; those that can't be opened are logged. */
  openAll(): void;
  /** Lets go of a cluster's runtime after its kubeconfig has changed; opened again, if the cluster still is. */
  renew(clusterId: string): Promise<void>;
  /** All that are open. */
  all(): ReadonlyMap<string, Runtime>;
  close(): Promise<void>;
}

export function createClusterRuntimes(options: ClusterRuntimesOptions): ClusterRuntimes {
  const { db, vault, log } = options;
  const runtimes = new Map<string, Runtime>();
  const find = db
    .select()
    .from(clusters)
    .where(eq(clusters.id, sql.placeholder("id")))
    .prepare();

  function open(id: string): Runtime {
    const cluster = find.get({ id });
    if (!cluster) throw new RuntimeUnreachable("The cluster is not registered any more");
    const runtime =
      cluster.provider === LOCAL_PROVIDER
        ? options.localRuntime()
        : fromKubeconfig(id, cluster.name, cluster.kubeconfig);
    if (!runtime) throw new RuntimeUnreachable("The local runtime is not there");
    runtimes.set(id, runtime);
    options.onOpen(runtime, id);
    return runtime;
  }

  function fromKubeconfig(id: string, name: string, sealed: string | null): Runtime {
    if (sealed === null) throw new RuntimeUnreachable("The cluster has no kubeconfig");
    try {
      return options.makeKubernetesRuntime(vault.open(sealed, id), { id, name });
    } catch (cause) {
      throw new RuntimeUnreachable("The cluster's kubeconfig can't be used", { cause });
    }
  }

  const of = (id: string) => runtimes.get(id) ?? open(id);

  return {
    of,
    openAll() {
      for (const { id, name } of db.select({ id: clusters.id, name: clusters.name }).from(clusters).all()) {
        try {
          of(id);
        } catch (error) {
          const cause = error instanceof Error ? (error.cause ?? error) : error;
          log.warn("cluster can't be used", { cluster: name, cause });
        }
      }
    },
    async renew(id) {
      const before = runtimes.get(id);
      // The local runtime has no kubeconfig that could have changed, and holds processes.
      if (before && before === options.localRuntime()) return;
      runtimes.delete(id);
      if (find.get({ id })) of(id);
      await before?.close();
    },
    all: () => runtimes,
    async close() {
      const open = [...runtimes.values()];
      runtimes.clear();
      await Promise.allSettled(open.map((runtime) => runtime.close()));
    },
  };
}
