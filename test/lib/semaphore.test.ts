import { expect, test } from "bun:test";
import fc from "fast-check";
import { Semaphore } from "../../src/lib/semaphore.ts";

test("no more run at once than the limit allows, all run, and in the order they came", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 1, max: 5 }),
      fc.array(fc.boolean(), { minLength: 1, maxLength: 30 }),
      fc.scheduler(),
      async (limit, fails, scheduler) => {
        const semaphore = new Semaphore(limit);
        const begun: number[] = [];
        let running = 0;
        const outcomes = Promise.allSettled(
          fails.map((fail, index) =>
            semaphore.run(async () => {
              begun.push(index);
              running += 1;
              expect(running).toBeLessThanOrEqual(limit);
              await scheduler.schedule(Promise.resolve());
              running -= 1;
              if (fail) throw new Error(`${index} failed`);
              return index;
            }),
          ),
        );
        const settled = await scheduler.waitFor(outcomes);
        expect(begun).toEqual(fails.map((_, index) => index));
        expect(settled.map(({ status }) => status === "rejected")).toEqual(fails);
      },
    ),
  );
});

test("as many run at once as the limit allows", async () => {
  const semaphore = new Semaphore(3);
  let running = 0;
  const release = Promise.withResolvers<void>();
  const all = Array.from({ length: 5 }, () =>
    semaphore.run(async () => {
      running += 1;
      await release.promise;
    }),
  );
  await Promise.resolve();
  expect(running).toBe(3);
  release.resolve();
  await Promise.all(all);
  expect(running).toBe(5);
});
