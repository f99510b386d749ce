import { expect, test } from "bun:test";
import { Window } from "../../../src/runtime/kubernetes/terminals/window.ts";

const KIB = 1024;

test("a window passes its ceiling only after it was resumed", () => {
  const window = new Window();
  window.begin(100, 150);
  expect([window.grant(), window.limit]).toEqual([true, 150]);
  window.receive(50);
  expect(window.grant()).toBeFalse();
  window.resume();
  expect(window.grant()).toBeTrue();
  expect(window.limit).toBeGreaterThan(150);
});

test("a window is granted in parts, and what may be ready beyond it follows its size", () => {
  const window = new Window();
  window.begin(0);
  window.grant();
  const first = window.limit;
  window.receive(first / 4 - 1);
  expect(window.grant()).toBeFalse();
  window.receive(1);
  expect([window.grant(), window.limit]).toEqual([true, first + first / 4]);
  for (let n = 0; n < 4000; n++) window.receive(first / 4);
  expect(window.aheadBytes).toBe(768 * KIB);
  window.capAt(512 * KIB);
  expect(window.aheadBytes).toBe(256 * KIB);
  for (let n = 0; n < 4000; n++) window.receive(first / 4);
  expect(window.aheadBytes).toBe(256 * KIB);
});

/** The size of the window after readers have taken so many bytes each millisecond, a pause after every 10 ms. */
function afterPauses(window: Window, clock: { ms: number }, bytesPerMs: number): number {
  for (let n = 0; n < 60; n++) {
    window.receive(10 * bytesPerMs);
    window.pause();
    clock.ms += 10;
    window.resume();
  }
  window.grant();
  return window.limit - window.received;
}

test("a window is as large as what readers take in 25 ms", () => {
  const clock = { ms: 0 };
  const window = new Window(() => clock.ms);
  window.begin(0);
  expect(afterPauses(window, clock, 100 * KIB)).toBe(1536 * KIB);
  expect(afterPauses(window, clock, 6 * KIB)).toBe(96 * KIB);
  expect(afterPauses(window, clock, KIB)).toBe(32 * KIB);
  expect(afterPauses(window, clock, 50 * KIB)).toBeWithin(512 * KIB, 1536 * KIB + 1);
});
