import { afterAll, describe, expect, test } from "bun:test";
import fc from "fast-check";
import type { StoredLine } from "../../src/logs/chunk.ts";
import { follow } from "../../src/logs/follow.ts";
import { createLogStore } from "../../src/logs/store.ts";
import { until } from "../until.ts";
import { line, lines, openLogDatabase } from "./environment.ts";

const database = openLogDatabase();
afterAll(() => database[Symbol.dispose]());

function newLog() {
  return { store: createLogStore(database.db), environmentId: database.newEnvironment() };
}

describe("a follower", () => {
  test("gets what there is and then what comes, and ends with its signal", async () => {
    const { store, environmentId } = newLog();
    store.append(environmentId, lines(1, 3));
    const stop = new AbortController();
    const got: number[] = [];
    const following = (async () => {
      for await (const batch of follow(store, environmentId, { after: 1, signal: stop.signal })) {
        got.push(...batch.map(({ seq }) => seq));
      }
    })();
    await until(() => got.length === 2);
    store.append(environmentId, lines(4, 5));
    store.appendSystem(environmentId, { message: "six", generation: 1 });
    await until(() => got.length === 5);
    stop.abort();
    await following;
    expect(got).toEqual([2, 3, 4, 5, 6]);
  });

  test.each([
    ["before it begins", true],
    ["while it waits", false],
  ])("ends at once when its signal aborts %s", async (_, before) => {
    const { store, environmentId } = newLog();
    const stop = new AbortController();
    if (before) stop.abort();
    const next = follow(store, environmentId, { after: 0, signal: stop.signal }).next();
    if (!before) stop.abort();
    expect(await next).toEqual({ done: true, value: undefined });
  });

  test("from a number that the log has not reached gets the next line that is written", async () => {
    const { store, environmentId } = newLog();
    store.append(environmentId, lines(1, 3));
    const follower = follow(store, environmentId, { after: 1_000_000, signal: new AbortController().signal });
    const next = follower.next();
    store.append(environmentId, [line(4)]);
    expect((await next).value).toMatchObject([{ seq: 4 }]);
    await follower.return();
  });

  test("that reads nothing while 20 MiB pass is then told what it missed, and gets all of the rest", async () => {
    const { store, environmentId } = newLog();
    const message = "x".repeat(1023);
    store.append(environmentId, lines(1, 64, { message }));
    const stop = new AbortController();
    const follower = follow(store, environmentId, { after: 0, signal: stop.signal });
    const got: StoredLine[] = [...((await follower.next()).value ?? [])];
    const total = 20 * 1024;
    for (let n = 65; n <= total; n += 64) store.append(environmentId, lines(n, n + 63, { message }));
    while (got.at(-1)?.seq !== total) got.push(...((await follower.next()).value ?? []));
    await follower.return();

    const gaps = got.filter(({ source }) => source === "system");
    expect(gaps).toHaveLength(1);
    const missing = Number(/\d+/.exec(gaps[0]?.message ?? "")?.[0]);
    expect(got.length - 1 + missing).toBe(total);
    const sequence = got.filter(({ source }) => source !== "system").map(({ seq }) => seq);
    expect(sequence).toEqual([...new Set(sequence)].sort((a, b) => a - b));
  });

  test("that is cut off at random and comes back to where it was has every line once and in order", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 5, maxLength: 40 }),
        fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 3, maxLength: 30 }),
        fc.scheduler(),
        async (appends, cuts, scheduler) => {
          const { store, environmentId } = newLog();
          let written = 0;
          const writes = scheduler.scheduleSequence(
            appends.map((count) => async () => {
              store.append(environmentId, lines(written + 1, written + count));
              written += count;
            }),
          );
          const total = appends.reduce((sum, count) => sum + count, 0);
          const got: number[] = [];
          const reading = (async () => {
            for (let round = 0; got.length < total; round++) {
              const stop = new AbortController();
              let batches = cuts[round % cuts.length] ?? 1;
              const after = got.at(-1) ?? 0;
              for await (const batch of follow(store, environmentId, { after, signal: stop.signal })) {
                got.push(...batch.map(({ seq }) => seq));
                if (--batches === 0 || got.length >= total) stop.abort();
              }
            }
          })();
          await scheduler.waitFor(Promise.all([writes.task, reading]));
          expect(got).toEqual(Array.from({ length: total }, (_, index) => index + 1));
        },
      ),
      { numRuns: 60 },
    );
  });
});
