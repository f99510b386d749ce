import { afterEach, beforeEach, expect, test } from "bun:test";
import { environmentRows } from "../../src/environments/rows.ts";
import { createUsageMeter } from "../../src/environments/usage.ts";
import { createLogger } from "../../src/lib/logger.ts";
import { temporaryDatabase } from "../database.ts";
import { environment, owner } from "./setup.ts";
import { World } from "./world.ts";

let database: ReturnType<typeof temporaryDatabase>;
beforeEach(() => {
  database = temporaryDatabase();
});
afterEach(() => database.remove());

function metered() {
  const { db } = database;
  const world = new World();
  const rows = environmentRows(db);
  const log = createLogger({ format: "text", level: "error" });
  return { db, world, meter: createUsageMeter({ db, rows, runtimeOf: () => world, now: () => 5000, log }) };
}

test("use is in percent of what the containers were made with, whatever has been saved since", async () => {
  const { db, world, meter } = metered();
  const limits = { cpu: "500m", memory: "1Gi", storage: "1Gi" };
  const row = environment(db, owner(db), {
    startedAt: 1,
    resources: { cpu: "2000m", memory: "4Gi", storage: "4Gi" },
    appliedResources: limits,
  });
  world.used = {
    cpuMillis: 250,
    memoryBytes: 2 ** 29,
    storageBytes: 2 ** 29,
    networkRxBytes: 0,
    networkTxBytes: 0,
    startedAtMs: 1000,
  };
  expect(await meter.measure(row)).toMatchObject({ cpu: 50, memory: 50, storage: 50, uptimeSeconds: 4 });
});
