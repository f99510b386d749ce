import { expect, test } from "bun:test";
import fc from "fast-check";
import { isId, leastIdAt, newId, timeOf } from "../../src/lib/ids.ts";

test("ids have the documented form, and the time in front", () => {
  const now = Date.UTC(2100, 0, 1);
  const id = newId(now);
  expect(isId(id)).toBeTrue();
  expect(timeOf(id)).toBe(now);
  expect(leastIdAt(now) < id && id < leastIdAt(now + 1)).toBeTrue();
});

test("ids sort in the order they were made, whatever the clock does, and none comes twice", () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 0, max: 2 ** 42 }), { minLength: 2, maxLength: 500 }), (clock) => {
      const ids = clock.map((now) => newId(now));
      expect(ids.toSorted()).toEqual(ids);
      expect(new Set(ids).size).toBe(ids.length);
      expect(ids.every(isId)).toBeTrue();
    }),
  );
});

test("more ids in one millisecond than its sequence counts still sort", () => {
  const now = 2 ** 43;
  const ids = Array.from({ length: 70_000 }, () => newId(now));
  for (let index = 1; index < ids.length; index++) {
    if ((ids[index] ?? "") <= (ids[index - 1] ?? "")) throw new Error(`${ids[index]} does not follow`);
  }
});

test.each([
  "",
  "0".repeat(23),
  "0".repeat(25),
  "A".repeat(24),
  "g".repeat(24),
  `${"0".repeat(24)}\n`,
  "../".repeat(8),
])("%p is no id", (text) => {
  expect(isId(text)).toBeFalse();
});
