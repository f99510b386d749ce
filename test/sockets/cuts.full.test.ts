import { describe, test } from "bun:test";
import { cutInput, cutOutput } from "./cuts.ts";

describe.if(process.env.DEVPOCKET_TEST_FULL === "1").each([
  ["JSON", false],
  ["binary", true],
])("over 1,000 random cuts of a %s connection", (_protocol, binary) => {
  test("every byte of output comes once", () => cutOutput({ cuts: 1000, binary, seed: 3 }), 600_000);
  test("every byte of input is applied once", () => cutInput({ cuts: 1000, binary, seed: 4 }), 600_000);
});
