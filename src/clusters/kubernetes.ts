import type { Logger } from "../lib/logger.ts";
import { createKubernetesRuntime } from "../runtime/kubernetes/kubernetes.ts";
import type { Runtime } from "../runtime/runtime.ts";
import { parseReduced } from "./kubeconfig.ts";

/**
 * The runtime of a registered cluster. This module, and with it the large client library, is loaded when
 * there is a cluster.
 *
 * @param kubeconfig as `reduceKubeconfig` gave it
 */
export function openKubernetesRuntime(
  kubeconfig: string,
  options: { log: Logger; now: () => number; serverId: string },
): Runtime {
  return createKubernetesRuntime({ cluster: { kubeConfig: parseReduced(kubeconfig) }, ...options });
}
