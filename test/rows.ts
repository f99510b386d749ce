import type { clusters, environments, templates, users } from "../src/db/schema.ts";
import { newId } from "../src/lib/ids.ts";

/* Rows as they may be in a database, for tests that put them straight into one. */

type Row<T extends { $inferInsert: object }> = T["$inferInsert"];

const TIMES = { createdAt: 0, updatedAt: 0 };
const RESOURCES = { cpu: "1", memory: "1Gi", storage: "1Gi" };

export function userRow(values: Partial<Row<typeof users>> = {}): Row<typeof users> {
  const id = values.id ?? newId();
  const name = values.username ?? id;
  return { id, username: name, usernameKey: name, email: name, emailKey: name, ...TIMES, ...values };
}

export function clusterRow(values: Partial<Row<typeof clusters>> = {}): Row<typeof clusters> {
  const id = values.id ?? newId();
  return { id, name: id, provider: "local", region: "local", ...TIMES, ...values };
}

export function templateRow(values: Partial<Row<typeof templates>> = {}): Row<typeof templates> {
  return {
    id: newId(),
    name: "shell",
    displayName: "Shell",
    description: "",
    category: "operating_system",
    tags: [],
    defaultPort: 8080,
    defaultResources: RESOURCES,
    environmentVariables: {},
    startupCommands: [],
    capabilities: [],
    version: "1",
    ...TIMES,
    ...values,
  };
}

type EnvironmentRow = Row<typeof environments>;

/** One that runs, if nothing else is said. */
export function environmentRow(
  values: Pick<EnvironmentRow, "userId" | "clusterId" | "templateId"> & Partial<EnvironmentRow>,
): EnvironmentRow {
  const id = values.id ?? newId();
  return {
    id,
    name: `e-${id}`,
    templateName: "shell",
    templateDisplayName: "Shell",
    port: 8080,
    startupCommands: [],
    templateVariables: {},
    capabilities: [],
    resources: RESOURCES,
    variables: {},
    desired: "running",
    generation: 1,
    status: "running",
    progress: 100,
    statusSince: 0,
    ...TIMES,
    ...values,
  };
}
