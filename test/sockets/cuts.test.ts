import { describe, test } from "bun:test";
import { cutInput, cutOutput } from "./cuts.ts";

describe.each([
  ["JSON", false],
  ["binary", true],
])("over 40 random cuts of a %s connection", (_protocol, binary) => {
  test("every byte of output comes once", () => cutOutput({ cuts: 40, binary }), 30_000);
  test("every byte of input is applied once", () => cutInput({ cuts: 40, binary }), 30_000);
});
