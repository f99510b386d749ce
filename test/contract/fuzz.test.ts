import { expect, test } from "bun:test";
import { fuzz } from "./fuzz.ts";

test("whatever is sent, no answer is a 5xx, and each fits the document", async () => {
  const { requests, statuses, memoryMiB } = await fuzz({ runs: 200, seed: 1 });
  expect(requests).toBeGreaterThanOrEqual(200);
  expect(Object.keys(statuses)).toEqual(expect.arrayContaining(["200", "401", "404", "422"]));
  expect(memoryMiB.end).toBeLessThan(400);
}, 120_000);
