import { z } from "@hono/zod-openapi";
import { TEMPLATE_CATEGORIES, TEMPLATE_STATUSES } from "../db/schema.ts";
import { isId } from "../lib/ids.ts";
import { parseBytes, parseCpuMillis } from "../lib/quantity.ts";
import { commandSummary, RESERVED_PREFIX } from "../runtime/startup.ts";
import type { Template, TemplateChange, TemplateValues } from "./templates.ts";

const MAX_VARIABLES = 100;
const MAX_VARIABLES_BYTES = 64 * 1024;

/** Source: distribution/reference: [host[:port]/]path[:tag][@digest]. */
const IMAGE =
  /^(?:[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?(?::\d{1,5})?\/)?[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*(?:\/[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*)*(?::\w[\w.-]{0,127})?(?:@[A-Za-z0-9]+:[0-9a-fA-F]{32,128})?$/;

/**
 * What a template may ask to keep: the list of the Pod Security Standards' baseline profile. Anything
 * beyond it would be a way out of the container.
 */
export const ALLOWED_CAPABILITIES = [
  "AUDIT_WRITE",
  "CHOWN",
  "DAC_OVERRIDE",
  "FOWNER",
  "FSETID",
  "KILL",
  "MKNOD",
  "NET_BIND_SERVICE",
  "SETFCAP",
  "SETGID",
  "SETPCAP",
  "SETUID",
  "SYS_CHROOT",
] as const;

const Name = z
  .string()
  .regex(/^[a-z0-9][a-z0-9.-]{0,49}$/, "Must be 1–50 lower-case letters, digits, dots and hyphens")
  .refine((name) => !isId(name), "Must not look like an id");

const VariableMap = z
  .record(
    z
      .string()
      .regex(/^[A-Za-z_][A-Za-z0-9_]*$/, "Is not a variable name")
      .refine((name) => !name.startsWith(RESERVED_PREFIX), `Names must not begin with ${RESERVED_PREFIX}`),
    z.string().max(MAX_VARIABLES_BYTES),
  )
  .refine((map) => Object.keys(map).length <= MAX_VARIABLES, `Must hold at most ${MAX_VARIABLES} variables`)
  .refine(
    (map) => Buffer.byteLength(Object.entries(map).flat().join("")) <= MAX_VARIABLES_BYTES,
    "Must hold at most 64 KiB in all",
  );

/** Environment variables, as templates and environments have them. */
export const Variables = z
  .preprocess((given, context) => {
    // A record passes over this one in silence.
    if (typeof given === "object" && given !== null && Object.hasOwn(given, "__proto__")) {
      const message = "Can't be a variable's name";
      context.addIssue({ code: "custom", path: ["__proto__"], message, params: { code: "invalid_key" } });
    }
    return given;
  }, VariableMap)
  .openapi({
    example: { NODE_ENV: "development" },
    description: `Names that begin with \`${RESERVED_PREFIX}\` are DevPocket's own`,
  });

const isPositive = (value: number | undefined) => value !== undefined && value > 0;
const cpu = z
  .string()
  .max(32)
  .refine((text) => isPositive(parseCpuMillis(text)), "Is not a CPU quantity");
const bytes = z
  .string()
  .max(32)
  .refine((text) => isPositive(parseBytes(text)), "Is not a quantity of bytes");

const PartialResources = z.object({
  cpu: cpu.optional().openapi({ example: "500m" }),
  memory: bytes.optional().openapi({ example: "1Gi" }),
  storage: bytes.optional().openapi({ example: "10Gi" }),
});

/** Kubernetes quantities, in answers. */
export const ResourcesBody = z
  .object({ cpu: z.string(), memory: z.string(), storage: z.string() })
  .openapi("Resources", { example: { cpu: "500m", memory: "1Gi", storage: "10Gi" } });

const link = z
  .string()
  .max(2048)
  .refine((text) => URL.canParse(text) && /^https?:$/.test(new URL(text).protocol), "Is not an HTTP URL")
  .nullable();

const Fields = z.object({
  name: Name.openapi({ example: "java" }),
  display_name: z.string().trim().min(1).max(100).openapi({ example: "Java 17 LTS" }),
  description: z.string().max(500),
  category: z.enum(TEMPLATE_CATEGORIES),
  tags: z
    .array(z.string().min(1).max(50))
    .max(30)
    .openapi({ example: ["java", "maven"] }),
  docker_image: z.string().max(255).regex(IMAGE, "Is not the name of an image").nullable().openapi({
    example: "eclipse-temurin:17",
    description: "Null: the local runtime's own shell, a plain Debian image on a cluster",
  }),
  default_port: z.int().min(1).max(65535).openapi({ example: 8080 }),
  default_resources: PartialResources,
  environment_variables: Variables,
  startup_commands: z
    .array(
      z
        .string()
        .max(4096)
        // What it is called in messages and marks must not be empty.
        .refine(
          (command) => commandSummary(command) !== "",
          "Must not be empty, nor only spaces and control characters",
        ),
    )
    .max(50)
    .openapi({
      example: ["apt-get update && apt-get install -y maven"],
      description: "Run by sh in this order at every start: they must be safe to repeat",
    }),
  capabilities: z
    .array(z.enum(ALLOWED_CAPABILITIES))
    .transform((names) => [...new Set(names)].sort())
    .openapi({
      example: ["CHOWN"],
      description: "Linux capabilities that the containers keep; all others go",
    }),
  documentation_url: link,
  icon_url: link,
  status: z.enum(TEMPLATE_STATUSES),
  version: z.string().min(1).max(50).openapi({ example: "1.0.0" }),
});

export const TemplateCreate = Fields.extend({
  description: Fields.shape.description.default(""),
  tags: Fields.shape.tags.default([]),
  default_port: Fields.shape.default_port.default(8080),
  default_resources: Fields.shape.default_resources.default({}),
  environment_variables: Fields.shape.environment_variables.default({}),
  startup_commands: Fields.shape.startup_commands.default([]),
  capabilities: Fields.shape.capabilities.default([]),
  documentation_url: Fields.shape.documentation_url.default(null),
  icon_url: Fields.shape.icon_url.default(null),
  status: Fields.shape.status.default("active"),
  version: Fields.shape.version.default("1.0.0"),
}).openapi("TemplateCreate");

export const TemplateUpdate = Fields.partial().openapi("TemplateUpdate", {
  description: "What is absent stays as it is. The name can't be changed.",
  example: { description: "Java with Spring Boot", tags: ["java", "spring-boot"], status: "active" },
});

const time = () => z.iso.datetime().openapi({ example: "2024-01-01T00:00:00Z" });

export const TemplateBody = z
  .object({
    id: z.string().openapi({ example: "0193a5b2c4d6000012ab34cd" }),
    name: z.string().openapi({ example: "python" }),
    display_name: z.string().openapi({ example: "Python 3.11" }),
    description: z.string(),
    category: z.enum(TEMPLATE_CATEGORIES),
    tags: z.array(z.string()),
    docker_image: z.string().nullable().openapi({ example: "python:3.11-slim" }),
    default_port: z.int(),
    default_resources: ResourcesBody,
    environment_variables: z.record(z.string(), z.string()),
    startup_commands: z.array(z.string()),
    capabilities: z.array(z.string()),
    documentation_url: z.string().nullable(),
    icon_url: z.string().nullable(),
    status: z.enum(TEMPLATE_STATUSES),
    version: z.string(),
    created_at: time(),
    updated_at: time(),
    usage_count: z.int().openapi({ description: "Environments ever created from it" }),
  })
  .openapi("Template");

/** The one shape in which clients see a template. */
export function templateBody(row: Template): z.infer<typeof TemplateBody> {
  return {
    id: row.id,
    name: row.name,
    display_name: row.displayName,
    description: row.description,
    category: row.category,
    tags: row.tags,
    docker_image: row.dockerImage,
    default_port: row.defaultPort,
    default_resources: row.defaultResources,
    environment_variables: row.environmentVariables,
    startup_commands: row.startupCommands,
    capabilities: row.capabilities,
    documentation_url: row.documentationUrl,
    icon_url: row.iconUrl,
    status: row.status,
    version: row.version,
    created_at: new Date(row.createdAt).toISOString(),
    updated_at: new Date(row.updatedAt).toISOString(),
    usage_count: row.usageCount,
  };
}

export function templateValues(body: z.infer<typeof TemplateCreate>): TemplateValues {
  const resources = { cpu: "500m", memory: "1Gi", storage: "10Gi" };
  return {
    name: body.name,
    displayName: body.display_name,
    description: body.description,
    category: body.category,
    tags: body.tags,
    dockerImage: body.docker_image,
    defaultPort: body.default_port,
    defaultResources: { ...resources, ...present(body.default_resources) },
    environmentVariables: body.environment_variables,
    startupCommands: body.startup_commands,
    capabilities: body.capabilities,
    documentationUrl: body.documentation_url,
    iconUrl: body.icon_url,
    status: body.status,
    version: body.version,
  };
}

export function templateChange(body: z.infer<typeof TemplateUpdate>): TemplateChange {
  return present({
    name: body.name,
    displayName: body.display_name,
    description: body.description,
    category: body.category,
    tags: body.tags,
    dockerImage: body.docker_image,
    defaultPort: body.default_port,
    defaultResources: body.default_resources && present(body.default_resources),
    environmentVariables: body.environment_variables,
    startupCommands: body.startup_commands,
    capabilities: body.capabilities,
    documentationUrl: body.documentation_url,
    iconUrl: body.icon_url,
    status: body.status,
    version: body.version,
  });
}

type Present<T> = { [K in keyof T]?: Exclude<T[K], undefined> };

/** Without the fields that are undefined. */
function present<T extends object>(fields: T): Present<T> {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as Present<T>;
}
