import type { OpenDatabase } from "../../src/db/open.ts";
import { clusters, environments, templates, users } from "../../src/db/schema.ts";
import { newId } from "../../src/lib/ids.ts";
import type { LogLine } from "../../src/runtime/runtime.ts";
import { temporaryDatabase } from "../database.ts";

export interface LogDatabase extends OpenDatabase {
  file: string;
  newEnvironment(): string;
  [Symbol.dispose](): void;
}

/** A database of its own, in which environments can be made to log for. */
export function openLogDatabase(): LogDatabase {
  const opened = temporaryDatabase();
  const owner = insertOwner(opened);
  return {
    ...opened,
    file: opened.sqlite.filename,
    newEnvironment: () => insertEnvironment(opened, owner),
    [Symbol.dispose]: opened.remove,
  };
}

const resources = { cpu: "500m", memory: "1Gi", storage: "1Gi" };
const times = { createdAt: 0, updatedAt: 0 };

function insertOwner({ db }: OpenDatabase) {
  const ids = { userId: newId(), clusterId: newId(), templateId: newId() };
  db.insert(users)
    .values({
      id: ids.userId,
      username: "ada",
      usernameKey: "ada",
      email: "a@b.c",
      emailKey: "a@b.c",
      ...times,
    })
    .run();
  db.insert(clusters)
    .values({ id: ids.clusterId, name: "local", provider: "local", region: "local", ...times })
    .run();
  db.insert(templates)
    .values({
      id: ids.templateId,
      name: "shell",
      displayName: "Shell",
      description: "",
      category: "operating_system",
      tags: [],
      defaultPort: 8080,
      defaultResources: resources,
      environmentVariables: {},
      startupCommands: [],
      capabilities: [],
      version: "1",
      ...times,
    })
    .run();
  return ids;
}

function insertEnvironment({ db }: OpenDatabase, owner: ReturnType<typeof insertOwner>): string {
  const id = newId();
  db.insert(environments)
    .values({
      id,
      ...owner,
      name: `env-${id}`,
      templateName: "shell",
      templateDisplayName: "Shell",
      port: 8080,
      startupCommands: [],
      templateVariables: {},
      capabilities: [],
      resources,
      variables: {},
      desired: "running",
      generation: 1,
      status: "running",
      progress: 100,
      statusSince: 0,
      ...times,
    })
    .run();
  return id;
}

/** Line number `n` of a runtime's log; its cursor is `n`. */
export function line(n: number, fields: Partial<LogLine> = {}): LogLine {
  return {
    atMs: 1_700_000_000_000 + n,
    level: "INFO",
    source: "application",
    message: `line ${n}`,
    generation: 1,
    cursor: String(n),
    ...fields,
  };
}

export function lines(from: number, to: number, fields: Partial<LogLine> = {}): LogLine[] {
  return Array.from({ length: to - from + 1 }, (_, index) => line(from + index, fields));
}
