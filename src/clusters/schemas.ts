import { z } from "@hono/zod-openapi";
import { CLUSTER_STATUSES, LOCAL_PROVIDER } from "../db/schema.ts";
import { isId } from "../lib/ids.ts";
import { formatBytes, formatCpuMillis } from "../lib/quantity.ts";
import type { Capacity } from "../runtime/runtime.ts";
import type { Measurement } from "./capacity.ts";
import type { Cluster } from "./clusters.ts";
import { statusOf } from "./local.ts";
import type { Region } from "./regions.ts";

const ENCRYPTED = "[ENCRYPTED]";

const Fields = z.object({
  name: z
    .string()
    .regex(
      /^[A-Za-z0-9][A-Za-z0-9 ._-]{0,62}$/,
      "Must be 1–63 letters, digits, spaces, dots, hyphens and underscores",
    )
    .refine((name) => !isId(name), "Must not look like an id")
    .openapi({ example: "production-cluster" }),
  description: z.string().max(500).nullable(),
  provider: z
    .string()
    .trim()
    .min(1)
    .max(50)
    .refine((provider) => provider !== LOCAL_PROVIDER, "Is kept for the embedded runtime")
    .openapi({ example: "ovh" }),
  region: z.string().trim().min(1).max(50).openapi({ example: "GRA7" }),
  kubeconfig: z
    .string()
    .min(1)
    .openapi({ description: "YAML or JSON, plain or in base64", example: "YXBpVmVyc2lvbjogdjEK…" }),
  status: z.enum(CLUSTER_STATUSES),
});

export const ClusterCreate = Fields.extend({
  description: Fields.shape.description.default(null),
  status: Fields.shape.status.default("active"),
}).openapi("ClusterCreate");

export const ClusterUpdate = z
  .object({
    name: Fields.shape.name.nullish(),
    description: Fields.shape.description.optional(),
    region: Fields.shape.region.nullish(),
    status: Fields.shape.status.nullish(),
    kubeconfig: Fields.shape.kubeconfig.nullish(),
  })
  .transform(({ kubeconfig, name, region, status, description }) => ({
    ...(name && { name }),
    ...(description !== undefined && { description }),
    ...(region && { region }),
    ...(status && { status }),
    // What answers show in its place may be sent back: it changes nothing.
    ...(kubeconfig && kubeconfig !== ENCRYPTED && { kubeconfig }),
  }))
  .openapi("ClusterUpdate", { description: "What is absent stays as it is. A new kubeconfig is vetted." });

const time = () => z.iso.datetime().openapi({ example: "2024-01-01T00:00:00Z" });
const quantity = (example: string) =>
  z.string().nullable().openapi({ example, description: "A Kubernetes quantity; null: not known" });

export const ClusterBody = z
  .object({
    id: z.string().openapi({ example: "0193a5b2c4d6000012ab34cd" }),
    name: z.string().openapi({ example: "production-cluster" }),
    description: z.string().nullable(),
    provider: z.string().openapi({ example: "ovh" }),
    region: z.string().openapi({ example: "GRA7" }),
    kubeconfig: z
      .literal(ENCRYPTED)
      .nullable()
      .openapi({ enum: [ENCRYPTED, null], description: "Null: the local cluster has none" }),
    status: z.enum(CLUSTER_STATUSES).openapi({ description: "Only active ones take new environments" }),
    node_count: z.int().nullable().openapi({ description: "As last seen; null: never seen", example: 3 }),
    capacity: z
      .object({
        total_cpu: quantity("100000m"),
        used_cpu: quantity("25000m"),
        total_memory: quantity("200Gi"),
        used_memory: quantity("50Gi"),
        total_storage: quantity("1000Gi"),
        used_storage: quantity("250Gi"),
      })
      .openapi({ description: "As last seen; `used_*` are sums of requests" }),
    created_at: time(),
    updated_at: time(),
  })
  .openapi("Cluster");

export const RegionBody = z
  .object({
    name: z.string().openapi({ example: "GRA7" }),
    display_name: z.string().openapi({ example: "Gravelines 7" }),
    country: z.string().nullable().openapi({ example: "France" }),
    provider: z.string().openapi({ example: "ovh" }),
  })
  .openapi("Region");

const HEALTH = ["healthy", "degraded", "unhealthy"] as const;
const share = () =>
  z.number().nullable().openapi({ example: 45.2, description: "Percent that is requested; null: not known" });
const nodes = () => z.int().nullable().openapi({ example: 3, description: "Null: not known" });

export const ClusterHealth = z
  .object({
    cluster_id: z.string(),
    status: z.enum(HEALTH),
    nodes: nodes(),
    ready_nodes: nodes(),
    cpu_usage: share(),
    memory_usage: share(),
    storage_usage: share(),
    components: z.array(
      z.object({
        name: z.string().openapi({ example: "api-server" }),
        status: z.enum(HEALTH),
        message: z.string().openapi({ example: "API server is responsive" }),
      }),
    ),
    last_check: time(),
  })
  .openapi("ClusterHealth");

/** The one shape in which clients see a cluster. */
export function clusterBody(
  row: Cluster,
  { seen, localEnabled }: { seen: Measurement | undefined; localEnabled: boolean },
): z.infer<typeof ClusterBody> {
  return {
    id: row.id,
    name: row.name,
    description: row.description,
    provider: row.provider,
    region: row.region,
    kubeconfig: row.kubeconfig === null ? null : ENCRYPTED,
    status: statusOf(row, localEnabled),
    node_count: row.nodeCount,
    capacity: capacityBody(seen?.reachable ? seen.capacity : undefined),
    created_at: new Date(row.createdAt).toISOString(),
    updated_at: new Date(row.updatedAt).toISOString(),
  };
}

function capacityBody(seen: Capacity | undefined) {
  const cpu = (millis: number | null | undefined) => (millis == null ? null : formatCpuMillis(millis));
  const bytes = (value: number | null | undefined) => (value == null ? null : formatBytes(value));
  return {
    total_cpu: cpu(seen?.totalCpuMillis),
    used_cpu: cpu(seen?.usedCpuMillis),
    total_memory: bytes(seen?.totalMemoryBytes),
    used_memory: bytes(seen?.usedMemoryBytes),
    total_storage: bytes(seen?.totalStorageBytes),
    used_storage: bytes(seen?.usedStorageBytes),
  };
}

export function regionBody(region: Region): z.infer<typeof RegionBody> {
  return {
    name: region.name,
    display_name: region.displayName,
    country: region.country,
    provider: region.provider,
  };
}

/** A cluster that can't be asked is unhealthy, and nothing else is known of it. */
export function healthBody(clusterId: string, seen: Measurement): z.infer<typeof ClusterHealth> {
  const common = { cluster_id: clusterId, last_check: new Date(seen.atMs).toISOString() };
  if (!seen.reachable) {
    return {
      ...common,
      status: "unhealthy",
      nodes: null,
      ready_nodes: null,
      cpu_usage: null,
      memory_usage: null,
      storage_usage: null,
      components: [{ name: "api-server", status: "unhealthy", message: seen.reason }],
    };
  }
  const { capacity } = seen;
  return {
    ...common,
    status: overall(capacity),
    nodes: capacity.nodes,
    ready_nodes: capacity.readyNodes,
    cpu_usage: percent(capacity.usedCpuMillis, capacity.totalCpuMillis),
    memory_usage: percent(capacity.usedMemoryBytes, capacity.totalMemoryBytes),
    storage_usage: percent(capacity.usedStorageBytes, capacity.totalStorageBytes),
    components: capacity.components,
  };
}

/** As its worst part; without a ready node nothing runs. */
function overall({ components, nodes, readyNodes }: Capacity): (typeof HEALTH)[number] {
  const states = components.map((component) => component.status);
  if (readyNodes === 0 || states.includes("unhealthy")) return "unhealthy";
  return readyNodes < nodes || states.includes("degraded") ? "degraded" : "healthy";
}

/** To one decimal. */
function percent(used: number | null, total: number | null): number | null {
  return used === null || !total ? null : Math.round((used / total) * 1000) / 10;
}
