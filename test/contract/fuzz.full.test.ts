import { describe, expect, test } from "bun:test";
import { fuzz } from "./fuzz.ts";

/** The same figure again gives the same requests: another one for a run by hand that looks further. */
const SEED = Number(process.env.DEVPOCKET_FUZZ_SEED ?? 1);

describe.if(process.env.DEVPOCKET_TEST_FULL === "1")("in the long run", () => {
  test("of 20,000 requests no answer is a 5xx, each fits the document, and memory is bounded", async () => {
    const result = await fuzz({ runs: 20_000, seed: SEED });
    console.log(result);
    expect(result.requests).toBeGreaterThanOrEqual(20_000);
    expect(result.memoryMiB.end).toBeLessThan(result.memoryMiB.early + 250);
  }, 580_000);
});
