import { expect, test } from "bun:test";
import fc from "fast-check";
import { parseIsoTime } from "../../src/lib/iso-time.ts";

test.each([
  ["2024-01-01T12:00:00Z", "2024-01-01T12:00:00.000Z"],
  ["2024-01-01T12:00:00.123456789Z", "2024-01-01T12:00:00.123Z"],
  ["2024-01-01T12:00:00,5z", "2024-01-01T12:00:00.500Z"],
  ["2024-01-01T12:00:00+02:00", "2024-01-01T10:00:00.000Z"],
  ["2024-01-01T12:00:00 02:00", "2024-01-01T10:00:00.000Z"],
  ["2024-01-01T12:00:00-0130", "2024-01-01T13:30:00.000Z"],
  ["2024-01-01T12:00:00", "2024-01-01T12:00:00.000Z"],
  ["2024-01-01 12:00", "2024-01-01T12:00:00.000Z"],
  ["2024-02-29", "2024-02-29T00:00:00.000Z"],
])("%p is %s", (text, time) => {
  expect(new Date(parseIsoTime(text) ?? Number.NaN).toISOString()).toBe(time);
});

test.each([
  "",
  "now",
  "2024",
  "1704067200",
  "2023-02-29",
  "2024-13-01",
  "2024-01-01T25:00:00Z",
  "2024-01-01T12:00:00Z;",
])("%p is no time", (text) => {
  expect(parseIsoTime(text)).toBeUndefined();
});

test("every time that is written by toISOString is read back", () => {
  const min = new Date("0000-01-01T00:00:00Z");
  const max = new Date("9999-12-31T23:59:59.999Z");
  fc.assert(
    fc.property(fc.date({ min, max, noInvalidDate: true }), (date) => {
      expect(parseIsoTime(date.toISOString())).toBe(date.getTime());
    }),
  );
});
