import { afterEach, beforeEach, expect, test } from "bun:test";
import { eq } from "drizzle-orm";
import { SYSTEM_ACTOR } from "../../src/audit/audit.ts";
import { users } from "../../src/db/schema.ts";
import { createEnvironment } from "../../src/environments/create.ts";
import { environmentRows } from "../../src/environments/rows.ts";
import { updateEnvironment } from "../../src/environments/update.ts";
import { AppError } from "../../src/errors.ts";
import { templateFinder } from "../../src/templates/templates.ts";
import { temporaryDatabase } from "../database.ts";
import { CLUSTER, DEADLINES, owner } from "./setup.ts";

let database: ReturnType<typeof temporaryDatabase>;
beforeEach(() => {
  database = temporaryDatabase();
});
afterEach(() => database.remove());

/** What one user asks for, each time with another CPU that the free plan does not allow. */
function requests(userId: string) {
  const { db } = database;
  const template = templateFinder(db)("shell", "user");
  if (!template) throw new Error("no template");
  const context = { db, userId, auditActor: SYSTEM_ACTOR, now: 1 };
  const resources = { cpu: "2000m" };
  const place = () => ({ clusterId: CLUSTER, reason: "" });
  return {
    create: (name: string) =>
      createEnvironment(
        { ...context, template, place, mailConfigured: true, deadlines: DEADLINES },
        { name, description: null, cluster: null, resources, variables: {} },
      ),
    update: (id: string) =>
      updateEnvironment({ ...context, rows: environmentRows(db) }, id, { resources: { cpu: "1500m" } }),
  };
}

test.each([
  ["was deactivated", { isActive: false }, "unauthenticated", "unauthenticated"],
  ["was deleted", { deletedAt: 1 }, "unauthenticated", "unauthenticated"],
  ["lost its plan", { plan: "free" }, "plan_ceiling", "plan_ceiling"],
  ["is no administrator's any more", { role: "user" }, "plan_limit", undefined],
  ["has a new address", { isVerified: false }, "email_unverified", undefined],
] as const)("an account that %s since the request began counts as it is", (_, change, created, updated) => {
  const { db } = database;
  const userId = owner(db, { plan: "starter" });
  const become = (values: Partial<typeof users.$inferInsert>) =>
    db.update(users).set(values).where(eq(users.id, userId)).run();
  const { create, update } = requests(userId);
  become({ isVerified: true, role: "admin" });
  const [{ id }] = [create("one"), create("two"), create("three")];
  become({ role: "user", ...change });
  expect(refusal(() => create("four"))).toBe(created);
  expect(refusal(() => update(id))).toBe(updated);
});

/** The most exact code that `work` is refused with. */
function refusal(work: () => unknown): string | undefined {
  try {
    work();
  } catch (error) {
    if (error instanceof AppError) return error.fields[0]?.code ?? error.code;
    throw error;
  }
}
