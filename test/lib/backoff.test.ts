import { expect, test } from "bun:test";
import fc from "fast-check";
import { backoffMs } from "../../src/lib/backoff.ts";

const policy = { baseMs: 100, maxMs: 30_000 };

test.each([
  [1, 50, 100],
  [2, 100, 200],
  [3, 200, 400],
  [9, 12_800, 25_600],
  [10, 15_000, 30_000],
  [10_000, 15_000, 30_000],
  [0, 50, 100],
])("after %d failures the delay is from %d to %d ms", (attempt, least, most) => {
  expect(backoffMs(policy, attempt, () => 0)).toBe(least);
  expect(backoffMs(policy, attempt, () => 1)).toBe(most);
});

test("a delay never passes the maximum, nor falls under half of the attempt before", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 100 }),
      fc.double({ min: 0, max: 1, noNaN: true }),
      (attempt, random) => {
        const delay = backoffMs(policy, attempt, () => random);
        expect(delay).toBeLessThanOrEqual(policy.maxMs);
        expect(delay).toBeGreaterThanOrEqual(Math.min(policy.maxMs, policy.baseMs * 2 ** (attempt - 1)) / 2);
      },
    ),
  );
});
