import { eq } from "drizzle-orm";
import type { Db } from "../../src/db/open.ts";
import { clusters, environments, type Plan, templates, users } from "../../src/db/schema.ts";
import type { Environment } from "../../src/environments/rows.ts";
import { newId } from "../../src/lib/ids.ts";
import { seedTemplates } from "../../src/templates/templates.ts";
import { environmentRow } from "../rows.ts";

export const DEADLINES = {
  provisioningMs: 600_000,
  imagePullMs: 60_000,
  unschedulableMs: 120_000,
  installingMs: 1_200_000,
  stoppingMs: 120_000,
};

/** A user, a cluster and the default templates, straight into the database. */
export function owner(db: Db, { plan = "free", at = 0 }: { plan?: Plan; at?: number } = {}): string {
  const id = newId();
  const name = `user-${id}`;
  db.insert(users)
    .values({
      id,
      username: name,
      usernameKey: name,
      email: `${name}@example.org`,
      emailKey: `${name}@example.org`,
      plan,
      createdAt: at,
      updatedAt: at,
    })
    .run();
  db.transaction((tx) => seedTemplates(tx, at));
  db.insert(clusters)
    .values({ id: CLUSTER, name: "local", provider: "local", region: "local", createdAt: at, updatedAt: at })
    .onConflictDoNothing()
    .run();
  return id;
}

export const CLUSTER = "c".repeat(24);

/** An environment as it would be after some life, straight into the database. */
export function environment(db: Db, userId: string, values: Partial<Environment> = {}): Environment {
  const template = db.select().from(templates).where(eq(templates.name, "shell")).get();
  if (!template) throw new Error("no template");
  const row = environmentRow({
    userId,
    clusterId: CLUSTER,
    templateId: template.id,
    resources: template.defaultResources,
    ...values,
  });
  return db.insert(environments).values(row).returning().get();
}
