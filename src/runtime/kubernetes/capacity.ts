import { parseBytes, parseCpuMillis } from "../../lib/quantity.ts";
import type { Capacity, ComponentHealth, NodeRoom } from "../runtime.ts";
import type { KubeClient } from "./api/client.ts";
import type { Claim, KubeObject, Node, Pod } from "./api/objects.ts";
import { allOf } from "./api/paths.ts";

const DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class";

/** What the cluster has and what is asked of it, by DevPocket and everybody else. */
export async function readCapacity(client: KubeClient): Promise<Capacity> {
  const [nodes, pods, claims, classes] = await Promise.all([
    client.list<Node>("/api/v1/nodes"),
    client.list<Pod>(allOf("pods"), { fieldSelector: "status.phase!=Succeeded,status.phase!=Failed" }),
    client.list<Claim>(allOf("persistentvolumeclaims")),
    client.list<KubeObject>("/apis/storage.k8s.io/v1/storageclasses"),
  ]);
  return capacityOf(nodes.items, pods.items, claims.items, classes.items);
}

export function capacityOf(nodes: Node[], pods: Pod[], claims: Claim[], classes: KubeObject[]): Capacity {
  const ready = nodes.filter(isReady);
  const open = ready.filter((node) => !node.spec?.unschedulable);
  const usable = open.filter((node) => !isTainted(node));
  const usableNames = new Set(usable.map((node) => node.metadata.name));
  // Those on nodes that can't be used take nothing from those that can; those on none will.
  const counted = pods.filter(({ spec }) => spec.nodeName === undefined || usableNames.has(spec.nodeName));
  const used = requestsOf(counted);
  return {
    nodes: nodes.length,
    readyNodes: ready.length,
    totalCpuMillis: sum(usable, (node) => parseCpuMillis(node.status?.allocatable?.cpu ?? "")),
    usedCpuMillis: used.cpuMillis,
    totalMemoryBytes: sum(usable, (node) => parseBytes(node.status?.allocatable?.memory ?? "")),
    usedMemoryBytes: used.memoryBytes,
    nodeRooms: roomsOf(usable, counted),
    // Storage is made as it is asked for; how much more there is only the provisioner knows.
    totalStorageBytes: null,
    usedStorageBytes: sum(claims, (claim) => parseBytes(claim.spec.resources?.requests?.storage ?? "0")),
    components: [
      { name: "api-server", status: "healthy", message: "answers" },
      nodesHealth(nodes.length, open.length, usable.length),
      storageHealth(classes),
    ],
  };
}

function isReady(node: Node): boolean {
  return node.status?.conditions?.find(({ type }) => type === "Ready")?.status === "True";
}

/** As control planes are. Pods of environments tolerate nothing. */
function isTainted({ spec }: Node): boolean {
  return spec?.taints?.some(({ effect }) => effect === "NoSchedule" || effect === "NoExecute") ?? false;
}

function requestsOf(pods: Pod[]): NodeRoom {
  const requests = pods.flatMap((pod) => pod.spec.containers.map((one) => one.resources?.requests ?? {}));
  return {
    cpuMillis: sum(requests, ({ cpu }) => parseCpuMillis(cpu ?? "0")),
    memoryBytes: sum(requests, ({ memory }) => parseBytes(memory ?? "0")),
  };
}

/** Of the nodes that take one more pod. */
function roomsOf(nodes: Node[], pods: Pod[]): NodeRoom[] {
  const byNode = Map.groupBy(pods, ({ spec }) => spec.nodeName);
  return nodes.flatMap(({ metadata, status: { allocatable = {} } = {} }) => {
    const own = byNode.get(metadata.name) ?? [];
    if (own.length >= Number(allocatable.pods ?? Number.POSITIVE_INFINITY)) return [];
    const used = requestsOf(own);
    return [
      {
        cpuMillis: (parseCpuMillis(allocatable.cpu ?? "") ?? 0) - used.cpuMillis,
        memoryBytes: (parseBytes(allocatable.memory ?? "") ?? 0) - used.memoryBytes,
      },
    ];
  });
}

function sum<T>(items: T[], value: (item: T) => number | undefined): number {
  return items.reduce((total, item) => total + (value(item) ?? 0), 0);
}

/** Tainted on purpose is not degraded; there has to be one that is not. */
function nodesHealth(all: number, open: number, usable: number): ComponentHealth {
  const message = `${usable} of ${all} ready and open to new pods`;
  const status = usable === 0 ? "unhealthy" : open < all ? "degraded" : "healthy";
  return { name: "nodes", status, message };
}

function storageHealth(classes: KubeObject[]): ComponentHealth {
  const name = "storage";
  const byDefault = classes.find(({ metadata }) => metadata.annotations?.[DEFAULT_CLASS] === "true");
  if (byDefault) return { name, status: "healthy", message: `default class ${byDefault.metadata.name}` };
  return { name, status: "unhealthy", message: "no default storage class: workspaces can't be made" };
}
