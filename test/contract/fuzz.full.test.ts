import { describe, expect, test } from "bun:test";
import { fuzz } from "./fuzz.ts";

describe.if(process.env.DEVPOCKET_TEST_FULL === "1")("in the long run", () => {
  test("of 20,000 requests no answer is a 5xx, each fits the document, and memory is bounded", async () => {
    const result = await fuzz({ runs: 20_000 });
    console.log(result);
    expect(result.requests).toBeGreaterThanOrEqual(20_000);
    expect(result.memoryMiB.end).toBeLessThan(result.memoryMiB.early + 250);
  }, 580_000);
});
