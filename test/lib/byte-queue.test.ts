import { expect, test } from "bun:test";
import fc from "fast-check";
import { ByteQueue } from "../../src/lib/byte-queue.ts";

test("gives what was put in, in order, in any pieces", () => {
  const step = fc.oneof(
    fc.record({ push: fc.uint8Array({ maxLength: 9000 }) }),
    fc.record({ take: fc.integer({ min: 1, max: 9000 }) }),
    fc.record({ dropOf: fc.integer({ min: 1, max: 9000 }) }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
      const queue = new ByteQueue();
      const put: Uint8Array[] = [];
      const got: Uint8Array[] = [];
      for (const each of steps) {
        if ("push" in each) {
          put.push(each.push);
          queue.push(each.push);
        } else if ("dropOf" in each) {
          const front = queue.peek();
          const dropped = Math.min(each.dropOf, front.length);
          got.push(front.slice(0, dropped));
          queue.drop(dropped);
        } else {
          const taken = queue.take(each.take);
          expect(taken.length).toBeLessThanOrEqual(each.take);
          if (queue.length > 0) expect(taken.length).toBeGreaterThan(0);
          got.push(taken.slice());
        }
      }
      while (queue.length > 0) got.push(queue.take(1000).slice());
      expect(Buffer.concat(got)).toEqual(Buffer.concat(put));
    }),
    { numRuns: 50 },
  );
});

test("keeps its own copy", () => {
  const queue = new ByteQueue();
  const bytes = Buffer.from("ab");
  queue.push(bytes);
  bytes.fill(0);
  expect(Buffer.from(queue.take(9)).toString()).toBe("ab");
});

test("drops no more than its front has, and everything when it is cleared", () => {
  const queue = new ByteQueue();
  queue.push(Buffer.from("ab"));
  expect(() => queue.drop(3)).toThrow(RangeError);
  expect(queue.length).toBe(2);
  queue.clear();
  expect([queue.length, queue.peek().length]).toEqual([0, 0]);
});
