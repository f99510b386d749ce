import { afterEach, beforeEach, expect, test } from "bun:test";
import { answerTo } from "../../src/environments/verbs.ts";
import { temporaryDatabase } from "../database.ts";
import { environment, owner } from "./setup.ts";

let database: ReturnType<typeof temporaryDatabase>;
beforeEach(() => {
  database = temporaryDatabase();
});
afterEach(() => database.remove());

test.each([
  ["start", "running", 1, "Environment started successfully"],
  ["start", "provisioning", 1, "Environment start initiated"],
  ["start", "error", 1, "Environment start failed"],
  ["stop", "stopped", 1, "Environment stopped successfully"],
  ["restart", "running", 2, "Environment restart initiated"],
  // Its cluster was removed.
  ["start", "terminated", 1, "Environment start initiated"],
  ["stop", "terminated", 2, "Environment stop initiated"],
] as const)("%s that comes to %s in generation %i is answered %p", (verb, status, generation, words) => {
  const desired = status === "stopped" || status === "terminated" ? status : "running";
  const row = environment(database.db, owner(database.db), { status, desired, generation });
  expect(answerTo(verb, { ...row, generation: 1 }, row)).toBe(words);
});
