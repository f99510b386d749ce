import type { EnvironmentRef, LogLevel } from "../runtime.ts";
import { type KubeEvent, timeMs } from "./api/objects.ts";
import { imagePullWords } from "./words.ts";

/* The Kubernetes events of an environment's objects: whose they are, and what they say to its owner. */

const NAMESPACE = /^devpocket-(h-[0-9a-f]{38}|[0-9a-z]+)$/;
const OBJECT = /^env-(h-[0-9a-f]{38}|[0-9a-z]+)(?:-|$)/;

/**
 * Whose environment an event is about, by the name of the object that it is about. Only for ids that stand
 * in names as they are; that is every id of DevPocket's.
 */
export function environmentOf(event: KubeEvent): EnvironmentRef | undefined {
  const userId = NAMESPACE.exec(event.metadata.namespace ?? "")?.[1];
  const environmentId = OBJECT.exec(event.involvedObject.name ?? "")?.[1];
  return userId && environmentId ? { environmentId, userId } : undefined;
}

/** When an event was last seen, in milliseconds since the epoch. */
export function eventTimeMs(event: KubeEvent): number {
  return (
    timeMs(event.series?.lastObservedTime) ??
    timeMs(event.lastTimestamp) ??
    timeMs(event.eventTime) ??
    timeMs(event.metadata.creationTimestamp) ??
    0
  );
}

export function eventCount(event: KubeEvent): number {
  return event.series?.count ?? event.count ?? 1;
}

/**
 * The order in which events were written. Resource versions are numbers that grow with every write
 * (Kubernetes enhancement 5504; true of every etcd-backed server before).
 */
export function eventVersion(event: KubeEvent): bigint {
  const version = event.metadata.resourceVersion ?? "";
  return /^\d+$/.test(version) ? BigInt(version) : 0n;
}

export function isNewerEvent(a: KubeEvent, b: KubeEvent): boolean {
  return eventVersion(a) > eventVersion(b);
}

/** Of no use to an environment's owner: our own probe while the startup commands run, and bookkeeping. */
function isNoise({ reason, message, involvedObject }: KubeEvent): boolean {
  if (reason === "Unhealthy") return /^Startup probe/.test(message ?? "");
  if (involvedObject.kind === "ReplicaSet") return reason !== "FailedCreate";
  return involvedObject.kind === "Deployment";
}

/** An event as a line of the environment's log; null for one that is not shown. */
export function eventLine(event: KubeEvent): { level: LogLevel; message: string } | null {
  if (isNoise(event) || !event.message) return null;
  const level: LogLevel = event.type === "Warning" ? "WARN" : "INFO";
  const count = eventCount(event);
  const times = count > 1 ? ` (${count} times)` : "";
  const message = event.message.replace(/[\p{Cc}\s]+/gu, " ").trim();
  return { level, message: `${event.reason ?? "Event"}: ${message}${times}` };
}

/** Why the image of a pod can't be pulled, as its events have it. */
export function pullFailure(
  events: KubeEvent[],
  podUid: string | undefined,
  image: string,
): { message: string; sinceMs: number } | undefined {
  const failures = events.filter(
    ({ reason, message, involvedObject }) =>
      involvedObject.uid === podUid &&
      reason === "Failed" &&
      /pull image|apply default image/i.test(message ?? ""),
  );
  const last = failures.at(-1);
  if (!last) return undefined;
  const since = failures.map((event) => timeMs(event.firstTimestamp) ?? eventTimeMs(event));
  return { message: imagePullWords(image, last.message ?? ""), sinceMs: Math.min(...since) };
}
