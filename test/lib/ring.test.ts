import { expect, test } from "bun:test";
import fc from "fast-check";
import { ByteRing } from "../../src/lib/ring.ts";

test("keeps the last bytes of everything pushed, each at its offset", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 200 }),
      // A number: so many bytes are missing.
      fc.array(fc.oneof(fc.uint8Array({ maxLength: 300 }), fc.nat(300)), { maxLength: 40 }),
      (capacity, pieces) => {
        const ring = new ByteRing(capacity);
        let all = Buffer.alloc(0);
        let begin = 0;
        for (const piece of pieces) {
          if (typeof piece === "number") ring.skip(piece);
          else ring.push(piece);
          all = Buffer.concat([all, typeof piece === "number" ? Buffer.alloc(piece) : piece]);
          if (typeof piece === "number") begin = all.length;
          expect(ring.end).toBe(all.length);
          expect(ring.start).toBe(Math.max(begin, all.length - capacity));
          expect(Buffer.from(ring.view(ring.start, ring.end))).toEqual(all.subarray(ring.start));
        }
      },
    ),
  );
});

test("gives any part of what it keeps, and nothing else", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 64 }),
      fc.array(fc.uint8Array({ minLength: 1, maxLength: 100 }), { minLength: 1, maxLength: 10 }),
      fc.nat(500),
      fc.nat(500),
      (capacity, pieces, from, to) => {
        const ring = new ByteRing(capacity);
        for (const piece of pieces) ring.push(piece);
        const all = Buffer.concat(pieces);
        if (from < ring.start || to > ring.end || from > to) {
          expect(() => ring.view(from, to)).toThrow(RangeError);
        } else {
          expect(Buffer.from(ring.view(from, to))).toEqual(all.subarray(from, to));
        }
      },
    ),
  );
});

test("takes no more memory than it needs, and never more than its capacity", () => {
  const ring = new ByteRing(1024 * 1024);
  expect(ring.allocatedBytes).toBe(4096);
  ring.push(new Uint8Array(5000));
  expect(ring.allocatedBytes).toBe(64 * 1024);
  for (let n = 0; n < 100; n++) ring.push(new Uint8Array(100_000));
  expect(ring.allocatedBytes).toBe(1024 * 1024);
});

test("a ring that is widened before it was full keeps more, and all it had", () => {
  const ring = new ByteRing(10_000, 7);
  const bytes = Uint8Array.from({ length: 25_000 }, (_, at) => at % 251);
  ring.push(bytes.subarray(0, 9_000));
  ring.widen(20_000);
  ring.push(bytes.subarray(9_000));
  expect([ring.start, ring.end]).toEqual([5_007, 25_007]);
  expect(ring.view(5_007, 25_007)).toEqual(bytes.subarray(5_000));
  expect(() => ring.widen(30_000)).toThrow(RangeError);
});
