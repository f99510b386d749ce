import { and, eq, gte, inArray, or } from "drizzle-orm";
import type { Tx } from "../db/open.ts";
import { clusters, environments, LOCAL_PROVIDER } from "../db/schema.ts";
import { AppError } from "../errors.ts";
import { formatBytes, formatCpuMillis, parseBytes, parseCpuMillis } from "../lib/quantity.ts";
import type { Capacity, ResourceLimits } from "../runtime/runtime.ts";
import { type CapacityBook, isOnCluster } from "./capacity.ts";
import { statusOf } from "./local.ts";

/** Where an environment shall live, and why, for the audit row. */
export interface Placement {
  clusterId: string;
  reason: string;
}

/** What a pod asks the scheduler for. */
export interface Requests {
  cpuMillis: number;
  memoryBytes: number;
}

interface PlacementOptions {
  capacity: Pick<CapacityBook, "last">;
  localEnabled: boolean;
  /** What the pod of an environment with these limits requests. */
  requestsOf(limits: ResourceLimits): Requests;
}

/**
 * Chooses the cluster of a new environment, inside the transaction that takes the place: environments that
 * were placed since a cluster was last measured count, so that many at once do not overbook it. Nothing is
 * waited for.
 *
 * Without a name: the active Kubernetes cluster with the largest free share afterwards; one that was never
 * measured comes after all that were. The local cluster only while no Kubernetes cluster is registered.
 *
 * @param ref id or name of a cluster; null: any
 * @throws AppError invalid for a named cluster that is not to be had; unavailable `no_cluster`
 */
export type Place = (tx: Tx, limits: ResourceLimits, ref: string | null) => Placement;

type Cluster = typeof clusters.$inferSelect;

/** How much of a cluster would be left: a share from 0 to 1; null: it was never measured. */
interface Room {
  cluster: Cluster;
  left: number | null;
  reason: string;
}

/** Why a cluster that takes new environments can't take this one. */
type Lack = "full" | "no_node" | "unreachable";

export function createPlacement({ capacity, localEnabled, requestsOf }: PlacementOptions): Place {
  function roomOn(tx: Tx, cluster: Cluster, asked: Requests): Room | Lack {
    const seen = capacity.last(cluster.id);
    if (!seen) return { cluster, left: null, reason: "not measured yet" };
    if (!seen.reachable) return "unreachable";
    if (seen.capacity.readyNodes === 0) return "no_node";
    const since = bookedSince(tx, cluster.id, seen.atMs, seen.counted, requestsOf);
    const taken = addUp(seen.capacity, since);
    const left = fitsANode(seen.capacity, asked) ? shareLeft(seen.capacity, taken, asked) : -1;
    return left < 0 ? "full" : { cluster, left, reason: describe(seen.capacity, taken) };
  }

  function named(tx: Tx, ref: string, asked: Requests): Placement {
    const cluster = tx
      .select()
      .from(clusters)
      .where(or(eq(clusters.id, ref), eq(clusters.name, ref)))
      .get();
    if (!cluster) throw notToBeHad(`There is no cluster "${ref}"`, "not_found");
    const status = statusOf(cluster, localEnabled);
    if (status !== "active") {
      const message = `Cluster "${cluster.name}" takes no new environments: it is ${status === "maintenance" ? "in maintenance" : status}`;
      throw notToBeHad(message, status);
    }
    if (cluster.provider === LOCAL_PROVIDER) return { clusterId: cluster.id, reason: "named in the request" };
    const room = roomOn(tx, cluster, asked);
    if (typeof room === "string") throw noCluster(`Cluster "${cluster.name}" ${inWords(room, asked)}`);
    return { clusterId: cluster.id, reason: `named in the request; ${room.reason}` };
  }

  return (tx, limits, ref) => {
    const asked = requestsOf(limits);
    if (ref !== null) return named(tx, ref, asked);
    const all = tx.select().from(clusters).all();
    const kubernetes = all.filter((cluster) => cluster.provider !== LOCAL_PROVIDER);
    const active = all.filter((cluster) => statusOf(cluster, localEnabled) === "active");
    if (kubernetes.length === 0) {
      const local = active[0];
      if (!local) throw noneOf([], asked);
      return { clusterId: local.id, reason: "no Kubernetes cluster is registered" };
    }
    const looks = active
      .filter((cluster) => cluster.provider !== LOCAL_PROVIDER)
      .map((cluster) => roomOn(tx, cluster, asked));
    const rooms = looks.filter((look) => typeof look !== "string").toSorted(byRoom);
    const [best] = rooms;
    if (!best)
      throw noneOf(
        looks.filter((look) => typeof look === "string"),
        asked,
      );
    const among = rooms.length === 1 ? "the only cluster with room" : `most room of ${rooms.length} clusters`;
    return { clusterId: best.cluster.id, reason: `${among}: ${best.reason}` };
  };
}

function byRoom(a: Room, b: Room): number {
  return (b.left ?? -1) - (a.left ?? -1) || (a.cluster.name < b.cluster.name ? -1 : 1);
}

/** Requests of environments that have taken a place which the last measurement does not show. */
function bookedSince(
  tx: Tx,
  clusterId: string,
  sinceMs: number,
  counted: ReadonlySet<string>,
  requestsOf: PlacementOptions["requestsOf"],
): Requests {
  const rows = tx
    .select({ id: environments.id, resources: environments.resources })
    .from(environments)
    .where(
      and(
        isOnCluster(tx, clusterId),
        or(
          inArray(environments.status, ["creating", "provisioning", "restarting"]),
          and(
            inArray(environments.status, ["installing", "configuring", "running"]),
            gte(environments.statusSince, sinceMs),
          ),
        ),
      ),
    )
    .all();
  const sum = { cpuMillis: 0, memoryBytes: 0 };
  for (const { id, resources } of rows) {
    if (counted.has(id)) continue;
    const requests = requestsOf({
      cpuMillis: parseCpuMillis(resources.cpu) ?? 0,
      memoryBytes: parseBytes(resources.memory) ?? 0,
      storageBytes: parseBytes(resources.storage) ?? 0,
    });
    sum.cpuMillis += requests.cpuMillis;
    sum.memoryBytes += requests.memoryBytes;
  }
  return sum;
}

/** Null where the cluster does not say what it has used. */
function addUp(seen: Capacity, since: Requests) {
  return {
    cpuMillis: seen.usedCpuMillis === null ? null : seen.usedCpuMillis + since.cpuMillis,
    memoryBytes: seen.usedMemoryBytes === null ? null : seen.usedMemoryBytes + since.memoryBytes,
  };
}

type Taken = ReturnType<typeof addUp>;

/** Room that lies in pieces on many nodes takes no pod. */
function fitsANode({ nodeRooms }: Capacity, asked: Requests): boolean {
  return (
    nodeRooms?.some((room) => room.cpuMillis >= asked.cpuMillis && room.memoryBytes >= asked.memoryBytes) ??
    true
  );
}

/**
 * The smaller of the shares of CPU and memory that would be left; negative: it does not fit. What is not
 * known does not limit.
 */
function shareLeft(seen: Capacity, taken: Taken, asked: Requests): number {
  return Math.min(
    share(seen.totalCpuMillis, taken.cpuMillis, asked.cpuMillis),
    share(seen.totalMemoryBytes, taken.memoryBytes, asked.memoryBytes),
  );
}

function share(total: number | null, taken: number | null, asked: number): number {
  if (total === null || taken === null) return 1;
  return total === 0 ? -1 : (total - taken - asked) / total;
}

function describe(seen: Capacity, taken: Taken): string {
  const of = (used: number | null, total: number | null, format: (value: number) => string) =>
    used === null || total === null ? "unknown" : `${format(used)} of ${format(total)}`;
  const cpu = of(taken.cpuMillis, seen.totalCpuMillis, formatCpuMillis);
  const memory = of(taken.memoryBytes, seen.totalMemoryBytes, formatMebibytes);
  return `${cpu} CPU and ${memory} memory were requested`;
}

function formatMebibytes(bytes: number): string {
  return formatBytes(Math.ceil(bytes / 2 ** 20) * 2 ** 20);
}

function notToBeHad(message: string, code: string): AppError {
  return new AppError("invalid", message, { fields: [{ field: "cluster_id", message, code }] });
}

function inWords(lack: Lack, asked: Requests): string {
  switch (lack) {
    case "full":
      return `has no room for ${wanted(asked)}`;
    case "no_node":
      return "has no node that is ready";
    case "unreachable":
      return "can't be reached now";
  }
}

/** None of the clusters that take new environments can take it: what would help soonest is said. */
function noneOf(lacks: readonly Lack[], asked: Requests): AppError {
  if (lacks.length === 0) return noCluster("There is no cluster that takes new environments");
  if (lacks.includes("full")) {
    const which = lacks.includes("unreachable") ? "No cluster that can be reached" : "No cluster";
    return noCluster(`${which} has room for ${wanted(asked)}`);
  }
  return noCluster(
    lacks.includes("no_node") ? "No cluster has a node that is ready" : "No cluster can be reached now",
  );
}

function wanted({ cpuMillis, memoryBytes }: Requests): string {
  const what = `${formatCpuMillis(cpuMillis)} CPU and ${formatMebibytes(memoryBytes)} memory`;
  return `an environment that requests ${what}`;
}

function noCluster(message: string): AppError {
  return new AppError("unavailable", message, {
    fields: [{ field: "cluster_id", message, code: "no_cluster" }],
    retryAfterSeconds: 60,
  });
}
