import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { WorkQueue } from "../../src/lib/workqueue.ts";
import { until } from "../until.ts";

/** A queue whose work ends when the test says so. */
function held(concurrency: number) {
  const begun: string[] = [];
  const endings = new Map<string, () => void>();
  const queue = new WorkQueue(
    (id) => {
      begun.push(id);
      return new Promise((resolve) => endings.set(id, resolve));
    },
    { concurrency },
  );
  async function end(id: string): Promise<void> {
    endings.get(id)?.();
    endings.delete(id);
    await Bun.sleep(0);
  }
  return { queue, begun, end };
}

describe("a work queue", () => {
  test("holds an id once, however often it is added", async () => {
    const { queue, begun, end } = held(1);
    for (const id of ["a", "b", "b", "c", "b"]) queue.add(id);
    expect(queue.depth).toBe(3);
    for (const id of ["a", "b", "c"]) await end(id);
    expect(begun).toEqual(["a", "b", "c"]);
    expect(queue.depth).toBe(0);
  });

  test("works again, once, on what was added while it was being worked on", async () => {
    const { queue, begun, end } = held(4);
    queue.add("a");
    queue.add("a");
    queue.add("a");
    expect(begun).toEqual(["a"]);
    await end("a");
    expect(begun).toEqual(["a", "a"]);
    await end("a");
    expect(begun).toEqual(["a", "a"]);
  });

  test("of several delays for one id keeps the earliest, and adding it outright ends them", async () => {
    const { queue, begun, end } = held(4);
    queue.addAfter("a", 60_000);
    queue.addAfter("a", 5);
    queue.addAfter("a", 60_000);
    await until(() => begun.length === 1);
    await end("a");
    queue.addAfter("b", 20);
    queue.add("b");
    await end("b");
    queue.addAfter("c", 40);
    await until(() => begun.includes("c"));
    expect(begun).toEqual(["a", "b", "c"]);
    await queue.stop(0);
  });

  test("that is stopped begins nothing more and says how many were still at work", async () => {
    const { queue, begun, end } = held(1);
    queue.add("a");
    queue.add("b");
    queue.add("a");
    queue.addAfter("c", 1);
    expect(await queue.stop(5)).toBe(1);
    queue.add("d");
    queue.addAfter("e", 0);
    await end("a");
    await Bun.sleep(5);
    expect(begun).toEqual(["a"]);
    expect(queue.depth).toBe(0);
  });

  test("that is stopped waits for what is at work", async () => {
    const { queue, end } = held(2);
    queue.add("a");
    const stopped = queue.stop(60_000);
    await end("a");
    expect(await stopped).toBe(0);
  });

  test("never works on an id twice at once nor on more than its limit, and on everything after its last add", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 4 }),
        fc.array(fc.constantFrom("a", "b", "c", "d", "e", "f"), { minLength: 1, maxLength: 60 }),
        fc.scheduler(),
        async (concurrency, adds, scheduler) => {
          const running = new Set<string>();
          let clock = 0;
          const addedAt = new Map<string, number>();
          const begunAt = new Map<string, number>();
          const queue = new WorkQueue(
            async (id) => {
              expect(running.has(id)).toBeFalse();
              running.add(id);
              expect(running.size).toBeLessThanOrEqual(concurrency);
              begunAt.set(id, ++clock);
              await scheduler.schedule(Promise.resolve());
              running.delete(id);
            },
            { concurrency },
          );
          const adding = scheduler.scheduleSequence(
            adds.map((id) => async () => {
              addedAt.set(id, ++clock);
              queue.add(id);
            }),
          );
          await scheduler.waitFor(adding.task);
          while (queue.depth > 0) {
            await scheduler.waitAll();
            // What the queue does once work has ended is still to come.
            await Bun.sleep(0);
          }
          for (const [id, at] of addedAt) expect(begunAt.get(id)).toBeGreaterThan(at);
        },
      ),
      { numRuns: 200 },
    );
  });
});
