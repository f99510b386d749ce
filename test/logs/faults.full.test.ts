import { describe, expect, test } from "bun:test";
import { followThroughFaults } from "./faults.ts";

describe.if(process.env.DEVPOCKET_TEST_FULL === "1")("a log followed for long", () => {
  test("has every line once and in order over 100 kills of the server and 1,000 cuts of the connection", async () => {
    const got = await followThroughFaults({ kills: 100, cutsPerLife: 10 });
    expect(got.length).toBeGreaterThan(50_000);
    expect(got).toEqual(got.map((_, index) => ({ id: index + 1, message: `line ${index + 1}` })));
  }, 300_000);
});
