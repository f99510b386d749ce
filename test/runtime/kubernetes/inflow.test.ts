import { expect, test } from "bun:test";
import { Inflow } from "../../../src/runtime/kubernetes/inflow.ts";
import { Window } from "../../../src/runtime/kubernetes/window.ts";

const PART = 64 * 1024;

/** Readers that take what `take` lets them. */
function readers(take: (window: Window, inflow: Inflow) => void = () => {}) {
  const window = new Window();
  const given: string[] = [];
  const inflow: Inflow = new Inflow(window, (bytes) => {
    given.push(Buffer.from(bytes.subarray(0, 1)).toString());
    take(window, inflow);
  });
  window.begin(0);
  return { window, inflow, given };
}

const of = (letter: string, length = 1) => Buffer.alloc(length, letter);

test("what comes while readers are paused is given when they are resumed, in order, and grants follow it", () => {
  const { window, inflow, given } = readers();
  inflow.receive(of("a"));
  window.pause();
  inflow.receive(of("b", PART));
  inflow.receive(of("c"));
  expect([given.join(""), inflow.isEmpty, window.received]).toEqual(["a", false, PART + 2]);
  window.resume();
  inflow.resume();
  expect([given.join(""), inflow.isEmpty]).toEqual(["abc", true]);
  window.grant();
  expect(window.limit - window.received).toBeGreaterThan(PART);
});

test("a window is not granted anew for what waits", () => {
  const { window, inflow } = readers((window) => window.pause());
  window.grant();
  const { limit } = window;
  inflow.receive(of("a"));
  inflow.receive(of("b", limit - 1));
  window.resume();
  window.grant();
  expect(window.limit).toBe(limit);
});

test("readers that pause while they are given some get the rest later", () => {
  const { window, inflow, given } = readers((window) => window.pause());
  for (const letter of "abc") inflow.receive(of(letter, PART));
  for (let n = 1; n <= 3; n++) {
    expect(given.join("")).toBe("abc".slice(0, n));
    window.resume();
    inflow.resume();
  }
  expect(inflow.isEmpty).toBeTrue();
});

test("readers that resume while they are given some get it once and in order", () => {
  const { window, inflow, given } = readers((window, inflow) => {
    window.pause();
    window.resume();
    inflow.resume();
    expect(inflow.isEmpty).toBeFalse();
  });
  window.pause();
  for (const letter of "abc") inflow.receive(of(letter, PART));
  window.resume();
  inflow.resume();
  expect([given.join(""), inflow.isEmpty]).toEqual(["abc", true]);
});

test("all of it is given when nothing follows, paused or not", () => {
  const { window, inflow, given } = readers();
  window.pause();
  for (const letter of "abc") inflow.receive(of(letter, PART));
  inflow.passAllOn();
  expect([given.join(""), inflow.isEmpty]).toEqual(["abc", true]);
});
