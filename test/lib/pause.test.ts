import { expect, test } from "bun:test";
import { pause } from "../../src/lib/pause.ts";

const HOUR = 3_600_000;

test("a pause is over in its time", async () => {
  const before = performance.now();
  await pause(20, new AbortController().signal);
  expect(performance.now() - before).toBeGreaterThanOrEqual(19);
});

test("a pause is over when its signal aborts, and does not begin after that", async () => {
  const stop = new AbortController();
  const paused = pause(HOUR, stop.signal);
  stop.abort();
  await paused;
  await pause(HOUR, stop.signal);
});
