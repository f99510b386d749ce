import { KubeConfig } from "@kubernetes/client-node";
import { newId } from "../../../src/lib/ids.ts";
import { createLogger } from "../../../src/lib/logger.ts";
import { createKubeClient, type KubeClient } from "../../../src/runtime/kubernetes/api/client.ts";
import { connectionOf } from "../../../src/runtime/kubernetes/api/connection.ts";
import {
  createKubernetesRuntime,
  type KubernetesRuntimeOptions,
} from "../../../src/runtime/kubernetes/kubernetes.ts";
import type { EnvironmentSpec, Observed, Runtime } from "../../../src/runtime/runtime.ts";
import { until } from "../../until.ts";

/* The real cluster that KUBECONFIG names, for tests. */

export function kubeConfig(): KubeConfig {
  const config = new KubeConfig();
  config.loadFromFile(process.env.KUBECONFIG ?? "");
  return config;
}

export interface Cluster {
  runtime: Runtime;
  client: KubeClient;
  serverId: string;
  /** A specification of an environment of a new user, who is cleaned up after the test. */
  spec(change?: Partial<EnvironmentSpec>): EnvironmentSpec;
  /** Another runtime for the same objects, as after a restart of the server. */
  restart(options?: Partial<KubernetesRuntimeOptions>): Runtime;
  close(): Promise<void>;
}

/** Each has a label of its own, so that tests running side by side see nothing of each other. */
export function openCluster(options: Partial<KubernetesRuntimeOptions> = {}): Cluster {
  const serverId = `test-${newId()}`;
  const log = createLogger({ format: "text", level: "error" });
  const client = createKubeClient(connectionOf(kubeConfig()));
  const made: EnvironmentSpec[] = [];
  const runtimes: Runtime[] = [];
  const restart = (more: Partial<KubernetesRuntimeOptions> = {}) => {
    const runtime = createKubernetesRuntime({
      cluster: { kubeConfig: kubeConfig() },
      log,
      serverId,
      ...options,
      ...more,
    });
    runtimes.push(runtime);
    return runtime;
  };
  return {
    runtime: restart(),
    client,
    serverId,
    restart,
    spec(change = {}) {
      const spec = { ...SMALL, environmentId: newId(), userId: newId(), ...change };
      made.push(spec);
      return spec;
    },
    async close() {
      const last = restart();
      await Promise.all(made.map((spec) => last.remove(spec)));
      const gone = async () => {
        const all = await Promise.all(made.map((spec) => last.observe(spec)));
        return all.every(({ phase }) => phase === "absent");
      };
      await until(gone, { timeoutMs: 120_000, intervalMs: 300, message: "something stays" });
      await Promise.all(runtimes.map((runtime) => runtime.close()));
    },
  };
}

const SMALL = {
  name: "test",
  generation: 1,
  image: "debian:12",
  startupCommands: [],
  variables: {},
  resources: { cpuMillis: 500, memoryBytes: 128 * 2 ** 20, storageBytes: 2 ** 30 },
  port: 8080,
  capabilities: [],
  userQuota: null,
};

export async function untilPhase<P extends Observed["phase"]>(
  runtime: Runtime,
  ref: EnvironmentSpec,
  phase: P,
  timeoutMs = 60_000,
): Promise<Extract<Observed, { phase: P }>> {
  let seen: Observed | undefined;
  const is = (observed: Observed): observed is Extract<Observed, { phase: P }> => observed.phase === phase;
  return until(
    async () => {
      seen = await runtime.observe(ref);
      return is(seen) ? seen : false;
    },
    { timeoutMs, intervalMs: 100, message: () => `wanted ${phase}, saw ${JSON.stringify(seen)}` },
  ) as Promise<Extract<Observed, { phase: P }>>;
}
