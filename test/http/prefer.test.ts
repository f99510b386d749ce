import { expect, test } from "bun:test";
import { preferredWaitSeconds } from "../../src/http/prefer.ts";

test.each([
  [undefined, undefined],
  ["", undefined],
  ["wait=10", 10],
  ["Wait=10", 10],
  ["WAIT = 10", 10],
  ['wait="10"', 10],
  ['wait="1\\0"', 10],
  ["wait=0", 0],
  ["wait=60", 60],
  ["wait=61", 60],
  ["wait=99999999999999999999999", 60],
  ["wait", undefined],
  ["wait=", undefined],
  ['wait=""', undefined],
  ["wait=-1", undefined],
  ["wait=1.5", undefined],
  ["wait=soon", undefined],
  ["respond-async, wait=10", 10],
  ["respond-async,wait=10", 10],
  ["respond-async , , wait=10", 10],
  ["respond-async; a=b; c, wait=10;foo=bar", 10],
  ['foo="a, wait=5", wait=10', 10],
  ['foo="a\\", wait=5", wait=10', 10],
  ['foo; bar="x, wait=5", wait=10', 10],
  ["wait=5, wait=10", 5],
  ["waiter=5", undefined],
  ["foo=wait=5", undefined],
  ['foo="unclosed, wait=5', undefined],
  ["(), wait=5", 5],
])("Prefer: %s waits %p seconds", (header, seconds) => {
  expect(preferredWaitSeconds(header)).toBe(seconds);
});

test("a long header is read in linear time", () => {
  const began = performance.now();
  preferredWaitSeconds(`${'a;"'.repeat(20_000)}`);
  preferredWaitSeconds(`${"a;".repeat(20_000)}`);
  preferredWaitSeconds(`a${" ".repeat(40_000)}x`);
  preferredWaitSeconds(`a${" ;".repeat(20_000)}"`);
  expect(performance.now() - began).toBeLessThan(500);
});
