import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { stamped } from "../../../src/runtime/kubernetes/logs/podlog.ts";
import {
  formatCursor,
  LineCounter,
  parseCursor,
  sinceSeconds,
} from "../../../src/runtime/kubernetes/logs/position.ts";

interface WrittenLine {
  atNs: bigint;
  /** The time of its second piece, if it is long. */
  endNs: bigint | null;
  text: string;
}

/**
 * What kubelet answers from a whole second on: in the order of the file, which need not be that of time, and
 * each piece of a line on its own. An older one gives the time of every piece, a newer one that of the first.
 */
function since(file: WrittenLine[], seconds: bigint, isOld: boolean) {
  const fromNs = seconds * 1_000_000_000n;
  return file
    .filter(({ atNs, endNs }) => (endNs ?? atNs) >= fromNs)
    .map(({ atNs, endNs, text }) => {
      const startNs = atNs >= fromNs ? atNs : isOld ? (endNs ?? atNs) : 0n;
      return { atNs: startNs, untilNs: isOld ? (endNs ?? atNs) : startNs, text };
    });
}

describe("a log that is taken up again", () => {
  const times = fc.array(fc.integer({ min: 0, max: 900 }), { maxLength: 60 });

  test("goes on with exactly the next line, wherever it was left and whatever the times", () => {
    fc.assert(
      fc.property(times, fc.nat(), fc.boolean(), (gaps, where, isOld) => {
        // Times grow by up to 0.9 s a line, and every third line carries one that is a little too early; every
        // fourth is long, and its end comes up to 2.7 s later.
        let now = 1_000_000_000_000n;
        const file = gaps.map((gap, index) => {
          now += BigInt(gap) * 1_000_000n;
          const atNs = index % 3 === 2 ? now - 400_000_000n : now;
          const isLong = index % 4 === 1;
          if (isLong) now += BigInt(gap) * 3_000_000n;
          return { atNs, endNs: isLong ? now : null, text: String(index) };
        });
        const left = file.length === 0 ? 0 : where % (file.length + 1);
        const whole = since(file, 0n, isOld);
        const first = new LineCounter(null);
        for (const line of whole.slice(0, left)) {
          expect(first.alreadyGiven(line)).toBe(0);
          first.given(line);
        }
        const position = first.position(0);
        const second = new LineCounter(left === 0 ? null : position);
        const again = left === 0 ? whole : since(file, sinceSeconds(position), isOld);
        const given = again.filter((line) => {
          if (second.alreadyGiven(line) === null) return false;
          second.given(line);
          return true;
        });
        expect(given.map(({ text }) => text)).toEqual(file.slice(left).map(({ text }) => text));
      }),
      { numRuns: 1000 },
    );
  });

  const at = (atNs: bigint) => ({ atNs, untilNs: atNs });

  test("gives lines whose forerunners were rotated away", () => {
    const counter = new LineCounter({ latestNs: 5_000_000_000n, lines: 7, parts: 0 });
    expect(counter.alreadyGiven(at(6_000_000_000n))).toBe(0);
  });

  test("gives the rest of a line of which a part was given", () => {
    const counter = new LineCounter({ latestNs: 5_000_000_000n, lines: 1, parts: 2 });
    expect(counter.alreadyGiven(at(5_000_000_000n))).toBeNull();
    const next = at(5_000_000_001n);
    expect(counter.alreadyGiven(next)).toBe(2);
    counter.given(next);
    expect(counter.alreadyGiven(at(5_000_000_002n))).toBe(0);
  });
});

describe("a cursor", () => {
  test.each([
    { container: null, events: 0n },
    { container: null, events: 12345678901234567890n },
    {
      container: {
        podUid: "d6f1edb3-45c5-461e-9ac3-e4367a2df4c6",
        podCreatedMs: 1795305400000,
        restartCount: 2,
        latestNs: 1795305501075182120n,
        lines: 3,
        parts: 1,
        installed: true,
      },
      events: 867n,
    },
  ])("is read as it was written (%#)", (position) => {
    expect(parseCursor(formatCursor(position))).toEqual(position);
  });

  test("may be of before positions told when a pod was made", () => {
    const container = { podUid: "u", podCreatedMs: 0, restartCount: 1, latestNs: 2n, lines: 3, parts: 4 };
    expect(parseCursor("1.5.u.1.2.3.4.a")).toEqual({
      container: { ...container, installed: true },
      events: 5n,
    });
  });

  test.each(["", "1", "1.x.-", "2.0.-", "1.0.a.b.c.d.e.f", "1.0.u.1.2.3.4.z"])("is not %p", (text) => {
    expect(parseCursor(text)).toBeNull();
  });
});

describe("a line's time", () => {
  test.each([
    ["2026-11-21T23:37:08.685370429Z line 1", 1795304228685370429n, "line 1"],
    ["2026-11-21T23:37:08.6Z ", 1795304228600000000n, ""],
    ["2026-11-22T00:37:08+01:00 x", 1795304228000000000n, "x"],
    ["failed to watch the log", 0n, "failed to watch the log"],
  ])("of %p is %p", (line, atNs, text) => {
    expect(stamped(line)).toEqual({ atNs, text });
  });
});
