import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { SlidingWindow } from "../../src/http/window.ts";

const MINUTE_MS = 60_000;

describe("a sliding window", () => {
  test("allows its limit, then nothing until the first request is a minute old", () => {
    const window = new SlidingWindow({ limit: 3 });
    expect(window.take("a", 1000)).toEqual({ allowed: true, limit: 3, remaining: 2, resetAtMs: 61_001 });
    expect(window.take("a", 2000)).toMatchObject({ allowed: true, remaining: 1, resetAtMs: 61_001 });
    expect(window.take("a", 3000)).toMatchObject({ allowed: true, remaining: 0, resetAtMs: 61_001 });
    expect(window.take("a", 61_000)).toMatchObject({ allowed: false, remaining: 0, resetAtMs: 61_001 });
    expect(window.take("a", 61_001)).toMatchObject({ allowed: true, remaining: 0, resetAtMs: 62_001 });
    expect(window.take("a", 61_002)).toMatchObject({ allowed: false, remaining: 0, resetAtMs: 62_001 });
  });

  test("does not count what it refuses", () => {
    const window = new SlidingWindow({ limit: 1 });
    window.take("a", 0);
    for (let now = 1; now < MINUTE_MS; now += 100) expect(window.take("a", now).allowed).toBeFalse();
    expect(window.take("a", MINUTE_MS + 1).allowed).toBeTrue();
  });

  test("counts each key for itself", () => {
    const window = new SlidingWindow({ limit: 1 });
    expect(window.take("a", 0).allowed).toBeTrue();
    expect(window.take("b", 0).allowed).toBeTrue();
    expect(window.take("a", 0).allowed).toBeFalse();
  });

  test("at any time has allowed no more than its limit in the last minute, and not much less", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 400 }),
        fc.array(fc.integer({ min: 0, max: 3000 }), { maxLength: 800 }),
        (limit, gaps) => {
          const window = new SlidingWindow({ limit });
          // Up to 128 every request has its own millisecond; beyond, one may count for a slice too long.
          const slackMs = limit <= 128 ? 1 : MINUTE_MS / 128;
          const allowed: number[] = [];
          let now = 1_700_000_000_000;
          for (const gap of gaps) {
            now += gap;
            const within = (ms: number) => allowed.filter((at) => at > now - ms).length;
            const verdict = window.take("a", now);
            if (verdict.allowed) expect(within(MINUTE_MS)).toBeLessThan(limit);
            else expect(within(MINUTE_MS + slackMs)).toBe(limit);
            if (!verdict.allowed) expect(verdict.resetAtMs).toBeGreaterThan(now);
            if (verdict.allowed) allowed.push(now);
          }
        },
      ),
    );
  });

  test("a refused request is allowed at the time it was told", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 300 }), fc.integer({ min: 0, max: 100 }), (limit, gap) => {
        const window = new SlidingWindow({ limit });
        let now = 1_700_000_000_000;
        let verdict = window.take("a", now);
        while (verdict.allowed) {
          now += gap;
          verdict = window.take("a", now);
        }
        expect(window.take("a", Math.ceil(verdict.resetAtMs)).allowed).toBeTrue();
      }),
      { numRuns: 30 },
    );
  });

  test("forgets keys that have been silent for a minute", () => {
    const window = new SlidingWindow({ limit: 5 });
    for (let i = 0; i < 1000; i++) window.take(`old${i}`, 0);
    for (let i = 0; i < 1000; i++) window.take(`new${i}`, 2 * MINUTE_MS);
    expect(window.size).toBe(1000);
  });

  test("a million addresses stay within its bound, and free nobody who is at the limit", () => {
    const window = new SlidingWindow({ limit: 5, maxKeys: 10_000 });
    for (let i = 0; i < 5; i++) window.take("guesser", 0);
    for (let i = 0; i < 1_000_000; i++) {
      window.take(`address${i}`, 10);
      if (i % 1000 === 0) expect(window.take("guesser", 10).allowed).toBeFalse();
    }
    expect(window.size).toBeLessThanOrEqual(10_000);
    expect(window.take("guesser", 10).allowed).toBeFalse();
  });
});
