import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import {
  formatBytes,
  formatCpuMillis,
  parseBytes,
  parseCpuMillis,
  parseQuantity,
} from "../../src/lib/quantity.ts";

describe("a quantity", () => {
  test.each([
    ["0", 0],
    ["1", 1],
    ["1.5", 1.5],
    [".5", 0.5],
    ["500m", 0.5],
    ["100u", 1e-4],
    ["7n", 7e-9],
    ["2k", 2000],
    ["2M", 2e6],
    ["2G", 2e9],
    ["2T", 2e12],
    ["2P", 2e15],
    ["1Ki", 1024],
    ["1.5Gi", 1.5 * 2 ** 30],
    ["3Ti", 3 * 2 ** 40],
    ["1Pi", 2 ** 50],
    ["1e3", 1000],
    ["1E3", 1000],
    ["25e-1", 2.5],
  ])("%s is %d", (text, value) => {
    expect(parseQuantity(text)).toBeCloseTo(value, 12);
  });

  test.each([
    "",
    " 1",
    "1 ",
    "-1",
    "+1",
    "1.",
    ".",
    "m",
    "1K",
    "1mi",
    "1Ei",
    "1e",
    "1e1m",
    "0x10",
    "1,5",
    "Infinity",
    "NaN",
    "1e999",
  ])("%p is none", (text) => {
    expect(parseQuantity(text)).toBeUndefined();
  });
});

test.each([
  ["500m", 500],
  ["0.5", 500],
  ["2", 2000],
  ["0.1", 100],
  ["0.3", 300],
  ["1.001", 1001],
  ["1u", 1],
  ["2500001u", 2501],
  ["nonsense", undefined],
])("%s of CPU is %p thousandths of a core, rounded up", (text, millis) => {
  expect(parseCpuMillis(text)).toBe(millis);
});

test.each([
  ["1Gi", 2 ** 30],
  ["1.5", 2],
  ["100m", 1],
  ["0.1Ki", 103],
  ["129e6", 129_000_000],
  ["", undefined],
])("%s is %p bytes, rounded up", (text, bytes) => {
  expect(parseBytes(text)).toBe(bytes);
});

test.each([
  [0, "0"],
  [2 ** 30, "1Gi"],
  [1536 * 2 ** 20, "1536Mi"],
  [2 ** 40 * 3, "3Ti"],
  [1500, "1500"],
  [1025, "1025"],
])("%d bytes are written %s", (bytes, text) => {
  expect(formatBytes(bytes)).toBe(text);
});

test("what is written is read back as it was", () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 2 ** 52 }), (bytes) => {
      expect(parseBytes(formatBytes(bytes))).toBe(bytes);
    }),
  );
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 10_000_000 }), (millis) => {
      expect(parseCpuMillis(formatCpuMillis(millis))).toBe(millis);
    }),
  );
});
