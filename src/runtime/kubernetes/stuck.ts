import type { Logger } from "../../lib/logger.ts";
import type { EnvironmentRef } from "../runtime.ts";
import type { KubeClient } from "./api/client.ts";
import { type Node, type Pod, timeMs } from "./api/objects.ts";
import { objectPath } from "./api/paths.ts";

/** A pod whose node does not answer is deleted by force this long after it should have been gone. */
const FORCE_AFTER_MS = 30_000;

interface StuckContext {
  client: KubeClient;
  now: () => number;
  log: Logger;
}

/**
 * Deletes pods by force that should long be gone: a node that does not answer would keep them, and with
 * them the environment, for ever. Where the node is well, kubelet is left to end what it can.
 */
export async function forceStuck(
  { client, now, log }: StuckContext,
  ref: EnvironmentRef,
  pods: Pod[],
): Promise<void> {
  for (const pod of pods) {
    const deadline = timeMs(pod.metadata.deletionTimestamp);
    if (deadline === undefined || now() < deadline + FORCE_AFTER_MS) continue;
    if (await isNodeWell(client, pod.spec.nodeName)) continue;
    log.warn("deleting a pod by force, its node does not answer", { ...ref, pod: pod.metadata.name });
    const uid = pod.metadata.uid;
    await client.delete(objectPath("pods", pod.metadata), { graceSeconds: 0, ...(uid ? { uid } : {}) });
  }
}

async function isNodeWell(client: KubeClient, nodeName: string | undefined): Promise<boolean> {
  const node = nodeName ? await client.get<Node>(`/api/v1/nodes/${nodeName}`) : null;
  return node?.status?.conditions?.find(({ type }) => type === "Ready")?.status === "True";
}
