import type { OpenDatabase } from "../../src/db/open.ts";
import { clusters, environments, templates, users } from "../../src/db/schema.ts";
import type { LogLine } from "../../src/runtime/runtime.ts";
import { temporaryDatabase } from "../database.ts";
import { clusterRow, environmentRow, templateRow, userRow } from "../rows.ts";

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

function insertOwner({ db }: OpenDatabase) {
  const [user, cluster, template] = [userRow(), clusterRow(), templateRow()];
  db.insert(users).values(user).run();
  db.insert(clusters).values(cluster).run();
  db.insert(templates).values(template).run();
  return { userId: user.id, clusterId: cluster.id, templateId: template.id };
}

function insertEnvironment({ db }: OpenDatabase, owner: ReturnType<typeof insertOwner>): string {
  const row = environmentRow(owner);
  db.insert(environments).values(row).run();
  return row.id;
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
