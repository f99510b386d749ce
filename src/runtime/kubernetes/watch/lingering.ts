import type { Logger } from "../../../lib/logger.ts";
import type { Hints } from "../../hints.ts";
import type { KubeClient } from "../api/client.ts";
import type { Pod } from "../api/objects.ts";
import { objectPath } from "../api/paths.ts";
import { hasEnded } from "../observe.ts";
import type { Mirror } from "./mirror.ts";

/** Time to read the last lines of its log, which goes with the pod. */
const LAST_WORDS_MS = 1_500;

interface LingeringContext {
  client: Pick<KubeClient, "delete">;
  mirror: Pick<Mirror, "pods">;
  hints: Hints;
  log: Logger;
  signal: AbortSignal;
  lastWordsMs?: number;
}

/**
 * Takes deleted pods off the cluster's books as soon as nothing of them runs: kubelet itself may take ten
 * seconds more, and until then no other pod starts in their place and the user's quota counts them.
 */
export function watchLingering({
  client,
  mirror,
  hints,
  log,
  signal,
  lastWordsMs = LAST_WORDS_MS,
}: LingeringContext): void {
  const due = new Map<string, Timer>();

  async function take(uid: string, pod: Pod): Promise<void> {
    try {
      await client.delete(objectPath("pods", pod.metadata), { graceSeconds: 0, uid });
    } catch (error) {
      // Kubelet does it in its own time.
      log.debug("a pod that has ended lingers", { pod: pod.metadata.name, error });
    } finally {
      due.delete(uid);
    }
  }

  const off = hints.on(({ environmentId }) => {
    for (const pod of mirror.pods(environmentId)) {
      const { uid, deletionTimestamp } = pod.metadata;
      if (!uid || !deletionTimestamp || !hasEnded(pod) || due.has(uid)) continue;
      due.set(
        uid,
        setTimeout(() => void take(uid, pod), lastWordsMs),
      );
    }
  });
  signal.addEventListener("abort", () => {
    off();
    for (const timer of due.values()) clearTimeout(timer);
  });
}
