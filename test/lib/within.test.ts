import { expect, test } from "bun:test";
import { endsWithin } from "../../src/lib/within.ts";

test("says whether work ends in time", async () => {
  expect(await endsWithin(10_000, Bun.sleep(1))).toBe(true);
  expect(await endsWithin(1, new Promise(() => {}))).toBe(false);
});

test("work that fails in time fails for whoever waits, later for nobody", async () => {
  const late = Promise.withResolvers<void>();
  await expect(endsWithin(10_000, Promise.reject(new Error("failed")))).rejects.toThrow("failed");
  expect(await endsWithin(1, late.promise)).toBe(false);
  late.reject(new Error("too late"));
});
