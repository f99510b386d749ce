import { afterEach, beforeEach, expect, test } from "bun:test";
import { type Environment, environmentRows } from "../../src/environments/rows.ts";
import { createUsageMeter, type UsageMeter } from "../../src/environments/usage.ts";
import { createLogger } from "../../src/lib/logger.ts";
import { RuntimeUnreachable } from "../../src/runtime/runtime.ts";
import { temporaryDatabase } from "../database.ts";
import { until } from "../until.ts";
import { environment, owner } from "./setup.ts";
import { World } from "./world.ts";

let database: ReturnType<typeof temporaryDatabase>;
let meter: UsageMeter;
beforeEach(() => {
  database = temporaryDatabase();
});
afterEach(() => {
  meter.stop();
  database.remove();
});

function metered() {
  const { db } = database;
  const world = new World();
  const rows = environmentRows(db);
  const log = createLogger({ format: "text", level: "error" });
  meter = createUsageMeter({ db, rows, runtimeOf: () => world, now: () => 5000, log, everyMs: 1 });
  const userId = owner(db);
  return {
    world,
    environment: (values: Partial<Environment> = {}) => environment(db, userId, { startedAt: 1, ...values }),
  };
}

test("use is in percent of what the containers were made with, whatever has been saved since", async () => {
  const { world, environment } = metered();
  const row = environment({
    resources: { cpu: "2000m", memory: "4Gi", storage: "4Gi" },
    appliedResources: { cpu: "500m", memory: "1Gi", storage: "1Gi" },
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

test("whoever asks is answered while those that are measured for the lists hang, a few at a time", async () => {
  const { world, environment } = metered();
  const rows = Array.from({ length: 6 }, () => environment());
  const asker = environment({ status: "configuring" });
  const answer = Promise.withResolvers<null>();
  const asked: string[] = [];
  world.usage = async ({ environmentId }) => {
    asked.push(environmentId);
    return environmentId === asker.id ? null : answer.promise;
  };
  meter.start();
  await until(() => asked.length === 4);
  expect(await meter.measure(asker)).toMatchObject({ uptimeSeconds: 0 });
  expect(asked).toHaveLength(5);
  answer.resolve(null);
  await until(() => asked.length === 7);
  expect(asked.toSorted()).toEqual([...rows, asker].map(({ id }) => id).toSorted());
});

test("what is out of reach runs on", async () => {
  const { world, environment } = metered();
  const row = environment({ startedAt: 1000 });
  world.usage = () => Promise.reject(new RuntimeUnreachable("no answer"));
  expect(await meter.measure(row)).toMatchObject({ cpu: null, memory: null, uptimeSeconds: 4 });
});

test("what is out of reach is not measured for the lists", async () => {
  const { world, environment } = metered();
  environment({ unreachableSince: 1 });
  const first = environment();
  const second = environment();
  const asked: string[] = [];
  world.usage = async ({ environmentId }) => {
    asked.push(environmentId);
    return null;
  };
  meter.start();
  await until(() => asked.length === 2);
  expect(asked.toSorted()).toEqual([first.id, second.id].toSorted());
});
