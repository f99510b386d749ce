import { expect, test } from "bun:test";
import { Window } from "../../../src/runtime/kubernetes/window.ts";

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

test("a window is granted in small parts, and what may be ready beyond it follows its size", () => {
  const window = new Window();
  window.begin(0);
  window.grant();
  const first = window.limit;
  window.receive(first / 8 - 1);
  expect(window.grant()).toBeFalse();
  window.receive(1);
  expect([window.grant(), window.limit]).toEqual([true, first + first / 8]);
  for (let n = 0; n < 1000; n++) window.receive(first / 8);
  expect(window.aheadBytes).toBe(256 * 1024);
  for (let n = 0; n < 10; n++) window.pause();
  expect(window.aheadBytes).toBe(64 * 1024);
});
