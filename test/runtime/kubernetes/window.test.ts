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
