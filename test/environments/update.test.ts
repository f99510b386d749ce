import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { eq } from "drizzle-orm";
import { SYSTEM_ACTOR } from "../../src/audit/audit.ts";
import { type Resources, users } from "../../src/db/schema.ts";
import { type Environment, environmentRows } from "../../src/environments/rows.ts";
import { environmentObject } from "../../src/environments/schemas.ts";
import { type UpdateRequest, updateEnvironment } from "../../src/environments/update.ts";
import { AppError } from "../../src/errors.ts";
import { temporaryDatabase } from "../database.ts";
import { environment, owner } from "./setup.ts";

let database: ReturnType<typeof temporaryDatabase>;
beforeEach(() => {
  database = temporaryDatabase();
});
afterEach(() => database.remove());

const MADE_WITH: Resources = { cpu: "500m", memory: "1Gi", storage: "10Gi" };

/** An environment of a user with the free plan, whose containers were made with `MADE_WITH`. */
function living(values: Partial<Environment> = {}) {
  const { db } = database;
  const userId = owner(db);
  const { id } = environment(db, userId, { resources: MADE_WITH, appliedResources: MADE_WITH, ...values });
  const context = { db, rows: environmentRows(db), userId, auditActor: SYSTEM_ACTOR, now: 1 };
  const change = (request: UpdateRequest) => environmentObject(updateEnvironment(context, id, request));
  return { userId, change };
}

describe("a restart is required", () => {
  test.each<[string, UpdateRequest[], boolean]>([
    ["by other resources", [{ resources: { cpu: "600m" } }], true],
    [
      "no more once they are as before",
      [{ resources: { cpu: "600m" } }, { resources: { cpu: "500m" } }],
      false,
    ],
    ["by no other way to write them", [{ resources: { cpu: "0.5", memory: "1024Mi" } }], false],
    ["by other variables", [{ variables: { A: "b" } }], true],
    [
      "by variables that were changed meanwhile",
      [{ resources: { cpu: "600m" }, variables: { A: "b" } }, { resources: { cpu: "500m" } }],
      true,
    ],
    ["by no other name", [{ name: "renamed", variables: {} }], false],
  ])("%s", (_, requests, required) => {
    const { change } = living();
    expect(requests.map(change).at(-1)?.restart_required).toBe(required);
  });

  test("by an edit of what was never made", () => {
    const { change } = living({ status: "creating", appliedResources: null });
    expect(change({ resources: { cpu: "600m" } }).restart_required).toBe(true);
  });

  test("of an environment that is stopped too, until it is as it was made", () => {
    const { change } = living({ status: "stopped", desired: "stopped" });
    expect(change({ resources: { memory: "2Gi" } }).restart_required).toBe(true);
    expect(change({ resources: { memory: "1Gi" } }).restart_required).toBe(false);
  });
});

describe("what is larger than its owner's plan allows now", () => {
  const LARGE: Resources = { cpu: "2000m", memory: "4Gi", storage: "50Gi" };

  test("can be made smaller, also a field at a time", () => {
    const { change } = living({ resources: LARGE, appliedResources: LARGE });
    expect(change({ resources: { cpu: "500m" } }).resources).toEqual({ ...LARGE, cpu: "500m" });
    expect(change({ resources: { ...LARGE, cpu: "500m", memory: "1Gi" } }).resources.memory).toBe("1Gi");
  });

  test.each<[string, Partial<Resources>, string]>([
    ["grow", { cpu: "3000m" }, "plan_ceiling"],
    ["shrink to what is still too large", { cpu: "1500m" }, "plan_ceiling"],
    ["have less storage, which would not shrink", { storage: "20Gi" }, "too_small"],
    ["fall below what can start", { memory: "1Mi" }, "too_small"],
  ])("can't %s", (_, resources, code) => {
    const { change } = living({ resources: LARGE, appliedResources: LARGE });
    expect(refusal(() => change({ resources }))).toBe(code);
  });

  test("grows again once the plan allows it", () => {
    const { change, userId } = living({ resources: LARGE, appliedResources: LARGE });
    database.db.update(users).set({ plan: "pro" }).where(eq(users.id, userId)).run();
    expect(change({ resources: { cpu: "3000m" } }).resources.cpu).toBe("3000m");
  });
});

function refusal(work: () => unknown): string | undefined {
  try {
    work();
  } catch (error) {
    if (error instanceof AppError) return error.fields[0]?.code;
    throw error;
  }
}
