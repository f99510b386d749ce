import { expect, test } from "bun:test";
import { TokenBucket } from "../../src/lib/token-bucket.ts";

test("begins full, refills evenly, and never holds more than its capacity", () => {
  let now = 0;
  const bucket = new TokenBucket({ capacity: 3, perMinute: 60, now: () => now });
  expect([bucket.take(), bucket.take(2), bucket.take()]).toEqual([true, true, false]);
  expect(bucket.waitMs()).toBe(1000);
  now = 999;
  expect(bucket.take()).toBe(false);
  now = 1000;
  expect(bucket.take()).toBe(true);
  now = 1_000_000;
  expect([bucket.take(4), bucket.take(3), bucket.take()]).toEqual([false, true, false]);
});
