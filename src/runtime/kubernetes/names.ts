import { createHash } from "node:crypto";
import type { EnvironmentRef } from "../runtime.ts";

/* Names and labels of everything that is made in a cluster. They follow from the ids alone. */

export const MANAGED_BY = "devpocket";
export const MANAGED_BY_LABEL = "app.kubernetes.io/managed-by";
export const ENVIRONMENT_LABEL = "devpocket.dev/environment-id";
export const USER_LABEL = "devpocket.dev/user-id";
/** Which DevPocket server an object belongs to, where several share a cluster. */
export const SERVER_LABEL = "devpocket.dev/server";
export const GENERATION_ANNOTATION = "devpocket.dev/generation";

export const CONTAINER = "environment";
export const SERVICE_ACCOUNT = "environment";
export const QUOTA = "devpocket";
export const LIMIT_RANGE = "devpocket";
export const NETWORK_POLICY = "devpocket";

/**
 * An id as a part of a DNS label. Lower-case letters and digits stay as they are (our own ids are 24 hex
 * digits); of any other id it is a hash, told apart by its hyphen, so that no two ids meet in one name.
 */
function namePart(id: string): string {
  if (/^[a-z0-9]{1,40}$/.test(id)) return id;
  return `h-${createHash("sha256").update(id).digest("hex").slice(0, 38)}`;
}

/** The namespace of all environments of a user. */
export function namespaceName(userId: string): string {
  return `devpocket-${namePart(userId)}`;
}

/** The name of an environment's Deployment, claim, ConfigMap, Secret and Service. */
export function environmentName(environmentId: string): string {
  return `env-${namePart(environmentId)}`;
}

export type Labels = Record<string, string>;

export function serverLabels(serverId: string): Labels {
  return { [MANAGED_BY_LABEL]: MANAGED_BY, [SERVER_LABEL]: serverId };
}

export function userLabels(userId: string, serverId: string): Labels {
  return { ...serverLabels(serverId), [USER_LABEL]: userId };
}

export function environmentLabels({ environmentId, userId }: EnvironmentRef, serverId: string): Labels {
  return {
    "app.kubernetes.io/name": "devpocket-environment",
    "app.kubernetes.io/instance": environmentName(environmentId),
    "app.kubernetes.io/component": "environment",
    ...userLabels(userId, serverId),
    [ENVIRONMENT_LABEL]: environmentId,
  };
}

/** A label selector in the form of a query parameter. */
export function selector(labels: Labels): string {
  return Object.entries(labels)
    .map(([name, value]) => `${name}=${value}`)
    .join(",");
}

/** Whose an object is; undefined for one that is no environment's. */
export function refOf(labels: Labels | undefined): EnvironmentRef | undefined {
  const environmentId = labels?.[ENVIRONMENT_LABEL];
  const userId = labels?.[USER_LABEL];
  return environmentId && userId ? { environmentId, userId } : undefined;
}

/**
 * Tells a run's marks in the log from a command's output. Anybody who can run commands in the environment
 * could find it out; it then deceives nobody but its owner.
 */
export function startupNonce(environmentId: string, generation: number): string {
  return createHash("sha256").update(`${environmentId}/${generation}`).digest("hex").slice(0, 24);
}
