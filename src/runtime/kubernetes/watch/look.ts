import type { EnvironmentRef } from "../../runtime.ts";
import type { KubeClient } from "../api/client.ts";
import type { Claim, Deployment, Pod } from "../api/objects.ts";
import { environmentPaths } from "../api/paths.ts";
import { ENVIRONMENT_LABEL } from "../names.ts";
import { namespaceState } from "../namespaces.ts";
import type { Sight } from "../observe.ts";
import type { Mirror } from "./mirror.ts";

export interface LookLimits {
  /** The mirror is believed only when the cluster has answered something within this time. */
  reachableMs: number;
  pingTimeoutMs: number;
  /** So long may an environment be seen in the mirror alone before the cluster itself is asked. */
  mirrorOnlyMs: number;
}

export const LOOK_LIMITS: LookLimits = { reachableMs: 3_000, pingTimeoutMs: 5_000, mirrorOnlyMs: 10_000 };

/**
 * Where an environment's objects are read. The mirror answers without a request while it can be trusted:
 * the cluster can be reached, our own last write has come back to us, and the cluster itself was asked not
 * long ago. Otherwise the cluster is asked.
 */
export interface Looking {
  look(ref: EnvironmentRef): Promise<Sight & { direct: boolean }>;
  lookDirectly(ref: EnvironmentRef): Promise<Sight & { direct: true }>;
  /** We have written this: the mirror is not believed before it has it too. */
  wrote(ref: EnvironmentRef, deployment: Deployment): void;
  /** We have deleted: the mirror is not believed until the cluster has said so. */
  deleted(ref: EnvironmentRef): void;
}

interface LookingOptions {
  client: KubeClient;
  mirror: Mirror;
  serverId: string;
  limits?: LookLimits;
}

/** What is remembered of an environment, until it is seen to be gone. */
interface Memory {
  askedAt: number;
  written: { uid: string | undefined; generation: number } | "deleted" | null;
}

export function createLooking({ client, mirror, serverId, limits = LOOK_LIMITS }: LookingOptions): Looking {
  const memories = new Map<string, Memory>();
  let answeredAt = Number.NEGATIVE_INFINITY;
  let ping: Promise<void> | undefined;

  const memoryOf = (id: string): Memory => {
    const memory = memories.get(id) ?? { askedAt: Number.NEGATIVE_INFINITY, written: null };
    memories.set(id, memory);
    return memory;
  };

  async function assureReachable(): Promise<void> {
    if (performance.now() - answeredAt < limits.reachableMs) return;
    ping ??= client
      .request("GET", "/version", { timeoutMs: limits.pingTimeoutMs })
      .then((response) => response.text())
      .then(() => {
        answeredAt = performance.now();
      })
      .finally(() => {
        ping = undefined;
      });
    await ping;
  }

  function inMirror({ environmentId, userId }: EnvironmentRef): Sight | undefined {
    const memory = memories.get(environmentId);
    const deployment = mirror.deployment(environmentId);
    if (!mirror.synced() || !memory || !deployment || memory.written === "deleted") return undefined;
    if (performance.now() - memory.askedAt > limits.mirrorOnlyMs) return undefined;
    const { uid, generation = 0 } = deployment.metadata;
    const { written } = memory;
    if (written && (written.uid !== uid || written.generation > generation)) return undefined;
    return {
      deployment,
      claim: mirror.claim(environmentId) ?? null,
      pods: mirror.pods(environmentId),
      events: mirror.events(environmentId),
      isolation: mirror.isolation.problem(userId),
      namespace: "unknown",
    };
  }

  async function lookDirectly(ref: EnvironmentRef): Promise<Sight & { direct: true }> {
    const paths = environmentPaths(ref);
    const labelSelector = `${ENVIRONMENT_LABEL}=${ref.environmentId}`;
    const [deployment, claim, pods] = await Promise.all([
      client.get<Deployment>(paths.deployment),
      client.get<Claim>(paths.claim),
      client.list<Pod>(paths.pods, { labelSelector }),
    ]);
    const nothing = !deployment && !claim && pods.items.length === 0;
    const namespace = nothing ? await namespaceState(client, ref, serverId) : "unknown";
    answeredAt = performance.now();
    if (nothing) memories.delete(ref.environmentId);
    else memoryOf(ref.environmentId).askedAt = answeredAt;
    return {
      deployment,
      claim,
      pods: pods.items,
      events: mirror.events(ref.environmentId),
      isolation: mirror.isolation.problem(ref.userId),
      namespace,
      direct: true,
    };
  }

  return {
    async look(ref) {
      const sight = inMirror(ref);
      if (!sight) return lookDirectly(ref);
      await assureReachable();
      return { ...sight, direct: false };
    },
    lookDirectly,
    wrote(ref, { metadata }) {
      memoryOf(ref.environmentId).written = { uid: metadata.uid, generation: metadata.generation ?? 0 };
    },
    deleted(ref) {
      memoryOf(ref.environmentId).written = "deleted";
    },
  };
}
