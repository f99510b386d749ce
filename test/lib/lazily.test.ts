import { expect, test } from "bun:test";
import { lazily } from "../../src/lib/lazily.ts";

test("makes nothing before the first use, then once, undefined too", () => {
  let made = 0;
  const get = lazily(() => {
    made += 1;
    return undefined;
  });
  expect(made).toBe(0);
  expect([get(), get()]).toEqual([undefined, undefined]);
  expect(made).toBe(1);
});

test("tries again after a failure", () => {
  const results = [new Error("not yet"), "there"];
  const get = lazily(() => {
    const next = results.shift();
    if (next instanceof Error) throw next;
    return next;
  });
  expect(get).toThrow("not yet");
  expect(get()).toBe("there");
});
