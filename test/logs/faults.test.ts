import { expect, test } from "bun:test";
import { followThroughFaults } from "./faults.ts";

test("every line comes once and in order over reconnects of client, server and runtime", async () => {
  const got = await followThroughFaults({ kills: 4, cutsPerLife: 5 });
  expect(got.length).toBeGreaterThan(1000);
  expect(got).toEqual(got.map((_, index) => ({ id: index + 1, message: `line ${index + 1}` })));
}, 30_000);
