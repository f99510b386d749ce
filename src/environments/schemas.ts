import { z } from "@hono/zod-openapi";
import { ENVIRONMENT_STATUSES } from "../db/schema.ts";
import { ResourcesBody, Variables } from "../templates/schemas.ts";
import { messageOf, type ShownEnvironment, waitsForRestart } from "./rows.ts";

const NAME = /^[a-z0-9]([a-z0-9-]*[a-z0-9])?$/;

const Name = z
  .string()
  .min(1)
  .max(50)
  .regex(NAME, "must be a DNS label: lower-case letters, digits and hyphens, not at the ends")
  .openapi({ example: "my-python-env" });

const Quantity = z.string().max(32);

const PartialResources = z
  .object({
    cpu: Quantity.nullish().openapi({ example: "500m" }),
    memory: Quantity.nullish().openapi({ example: "1Gi" }),
    storage: Quantity.nullish().openapi({ example: "10Gi" }),
  })
  .openapi("ResourcesRequest", { description: "Kubernetes quantities; what is absent is the template's" });

export const CreateBody = z
  .object({
    name: Name,
    description: z.string().max(500).nullish(),
    template: z
      .string()
      .nullish()
      .openapi({ description: "Id, name or slug of a template", example: "python" }),
    template_id: z.string().nullish().openapi({ description: "Another name for `template`" }),
    cluster_id: z
      .string()
      .nullish()
      .openapi({ description: "Id or name; without it the scheduler places it" }),
    resources: PartialResources.nullish(),
    environment_variables: Variables.nullish(),
  })
  .refine((body) => Boolean(body.template ?? body.template_id), {
    path: ["template"],
    message: "is required",
  })
  // What only some send is left out: no made-up name of a cluster is one.
  .openapi("EnvironmentCreate", {
    example: {
      name: "my-python-env",
      description: "My Python development environment",
      template: "python",
      resources: { cpu: "500m", memory: "1Gi", storage: "10Gi" },
      environment_variables: { PYTHONUNBUFFERED: "1" },
    },
  });

export const UpdateBody = z
  .object({
    name: Name.nullish(),
    description: z.string().max(500).nullish(),
    resources: PartialResources.nullish(),
    environment_variables: Variables.nullish(),
  })
  .openapi("EnvironmentUpdate");

const time = () => z.iso.datetime().openapi({ example: "2024-01-01T00:00:00Z" });
const percent = (what: string) =>
  z
    .number()
    .nullable()
    .openapi({ description: `${what}, percent of the limit; null: never measured`, example: 15.5 });

export const EnvironmentObject = z
  .object({
    id: z.string().openapi({ example: "0193a5b2c4d6000012ab34cd" }),
    name: z.string().openapi({ example: "my-python-env" }),
    description: z.string().nullable(),
    template_id: z.string(),
    template_name: z.string().openapi({ example: "Python 3.11" }),
    cluster_id: z.string(),
    status: z.enum(ENVIRONMENT_STATUSES),
    status_message: z.string().nullable().openapi({ description: "Why, in words" }),
    progress: z.int().min(0).max(100),
    docker_image: z.string().nullable().openapi({ example: "python:3.11-slim" }),
    port: z.int(),
    resources: ResourcesBody,
    environment_variables: z.record(z.string(), z.string()),
    installation_completed: z.boolean(),
    restart_required: z.boolean().openapi({ description: "A change waits for the next start or restart" }),
    created_at: time(),
    updated_at: time(),
    last_activity: time().nullable(),
    cpu_usage: percent("CPU"),
    memory_usage: percent("Memory"),
    storage_usage: percent("Storage"),
    external_url: z.string().nullable(),
    web_port: z.int(),
  })
  .openapi("Environment");

export const VerbAnswer = z
  .object({
    message: z.string().openapi({ example: "Environment start initiated" }),
    status: z.enum(ENVIRONMENT_STATUSES),
  })
  .openapi("EnvironmentVerbResult");

export const Metrics = z
  .object({
    environment_id: z.string(),
    cpu_usage: percent("CPU"),
    memory_usage: percent("Memory"),
    storage_usage: percent("Storage"),
    network_rx: z.int().nullable().openapi({ description: "Bytes received since the containers started" }),
    network_tx: z.int().nullable().openapi({ description: "Bytes sent since the containers started" }),
    uptime: z.int().openapi({ description: "Seconds since the containers started; 0 when not running" }),
    last_updated: time(),
  })
  .openapi("EnvironmentMetrics");

function iso(ms: number): string {
  return new Date(ms).toISOString();
}

/** The one shape in which clients see an environment. */
export function environmentObject(row: ShownEnvironment): z.infer<typeof EnvironmentObject> {
  const idle = row.status !== "running" && row.startedAt === null;
  return {
    id: row.id,
    name: row.name,
    description: row.description,
    template_id: row.templateId,
    template_name: row.templateDisplayName,
    cluster_id: row.clusterId,
    status: row.status,
    status_message: messageOf(row),
    progress: row.progress,
    docker_image: row.dockerImage,
    port: row.port,
    resources: row.resources,
    environment_variables: row.variables,
    installation_completed: row.installationCompleted,
    restart_required: waitsForRestart(row),
    created_at: iso(row.createdAt),
    updated_at: iso(row.updatedAt),
    last_activity: row.lastActivity === null ? null : iso(row.lastActivity),
    cpu_usage: idle ? 0 : row.cpuUsage,
    memory_usage: idle ? 0 : row.memoryUsage,
    storage_usage: row.storageUsage,
    external_url: null,
    web_port: row.port,
  };
}
