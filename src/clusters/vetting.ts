import { AppError } from "../errors.ts";
import { Semaphore } from "../lib/semaphore.ts";
import { createKubeClient, type KubeClient } from "../runtime/kubernetes/api/client.ts";
import { connectionOf } from "../runtime/kubernetes/api/connection.ts";
import { isStatus, KubeStatusError } from "../runtime/kubernetes/api/errors.ts";
import type { Namespace } from "../runtime/kubernetes/api/objects.ts";
import { namespacePath } from "../runtime/kubernetes/api/paths.ts";
import { PERMISSIONS, type Permission, permissionName } from "../runtime/kubernetes/manifests/permissions.ts";
import { RuntimeUnreachable } from "../runtime/runtime.ts";
import { parseReduced } from "./kubeconfig.ts";

/** For everything together: the request that waits for it is cut when it is silent for longer. */
const VETTING_TIMEOUT_MS = 7500;
const REVIEWS_AT_ONCE = 8;
const REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";

interface Review {
  status?: { allowed?: unknown };
}

export interface VettingOptions {
  timeoutMs?: number;
  permissions?: readonly Permission[];
}

/**
 * Checks that the cluster of a reduced kubeconfig answers and lets DevPocket do everything that it has to.
 *
 * @returns the cluster's UID, which stays the same whatever its address is
 * @throws AppError invalid: unreachable, not accepted, or lacking permissions, each of which is named
 */
export async function vetCluster(
  reduced: string,
  { timeoutMs = VETTING_TIMEOUT_MS, permissions = PERMISSIONS }: VettingOptions = {},
): Promise<string> {
  const signal = AbortSignal.timeout(timeoutMs);
  try {
    const client = createKubeClient(connectionOf(parseReduced(reduced)));
    await version(client, signal);
    const missing = await missingPermissions(client, permissions, signal);
    if (missing.length > 0)
      throw unfit(`DevPocket may not ${missing.join(", ")} there`, "missing_permissions");
    return await clusterUid(client, signal);
  } catch (error) {
    throw asAppError(error);
  }
}

/** What answers must be a Kubernetes API server before it is told anything. */
async function version(client: KubeClient, signal: AbortSignal): Promise<void> {
  const answer = await client.get<{ gitVersion?: unknown }>("/version", { signal });
  if (typeof answer?.gitVersion !== "string") throw notKubernetes();
}

/** A cluster has no name of its own; by convention it is known by the namespace that every one has. */
async function clusterUid(client: KubeClient, signal: AbortSignal): Promise<string> {
  const namespace = await client.get<Namespace>(namespacePath("kube-system"), { signal });
  if (!namespace?.metadata?.uid) throw notKubernetes();
  return namespace.metadata.uid;
}

async function missingPermissions(
  client: KubeClient,
  permissions: readonly Permission[],
  signal: AbortSignal,
): Promise<string[]> {
  const places = new Semaphore(REVIEWS_AT_ONCE);
  const reviews = permissions.flatMap((permission) =>
    permission.verbs.map((verb) =>
      places.run(async () =>
        (await isAllowed(client, permission, verb, signal)) ? [] : [permissionName(permission, verb)],
      ),
    ),
  );
  return (await Promise.all(reviews)).flat();
}

async function isAllowed(
  client: KubeClient,
  { group, resource, subresource }: Permission,
  verb: string,
  signal: AbortSignal,
): Promise<boolean> {
  const review = await client.requestJson<Review | null>("POST", REVIEWS, {
    signal,
    body: {
      apiVersion: "authorization.k8s.io/v1",
      kind: "SelfSubjectAccessReview",
      spec: { resourceAttributes: { group, resource, verb, ...(subresource && { subresource }) } },
    },
  });
  if (typeof review?.status?.allowed !== "boolean") throw notKubernetes();
  return review.status.allowed;
}

function asAppError(error: unknown): unknown {
  if (isStatus(error, 401)) return unfit("The cluster does not accept these credentials", "unauthenticated");
  if (error instanceof KubeStatusError) {
    return unfit(`The cluster refuses to be asked what DevPocket may do (status ${error.code})`, "refused");
  }
  if (error instanceof RuntimeUnreachable) return unfit(error.message, "unreachable");
  return error;
}

function notKubernetes(): AppError {
  return unfit("What answers at the server's address is not a Kubernetes API server", "not_kubernetes");
}

function unfit(message: string, code: string): AppError {
  return new AppError("invalid", message, { fields: [{ field: "kubeconfig", message, code }] });
}
