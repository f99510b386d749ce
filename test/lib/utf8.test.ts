import { expect, test } from "bun:test";
import fc from "fast-check";
import { wholeCharacters } from "../../src/lib/utf8.ts";

const decode = (bytes: Uint8Array) => new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes);

/** As an attachment does: as many whole characters as there are, the rest with what comes next. */
function decodeInPieces(pieces: Uint8Array[]): string {
  let text = "";
  let rest = Buffer.alloc(0);
  for (const piece of pieces) {
    const bytes = Buffer.concat([rest, piece]);
    const whole = wholeCharacters(bytes);
    text += decode(bytes.subarray(0, whole));
    rest = bytes.subarray(whole);
    expect(rest.length).toBeLessThanOrEqual(3);
  }
  return text + decode(rest);
}

function cut(bytes: Uint8Array, places: number[]): Uint8Array[] {
  const cuts = [0, ...places.map((place) => place % (bytes.length + 1)).sort((a, b) => a - b), bytes.length];
  return cuts.slice(1).map((to, n) => bytes.subarray(cuts[n], to));
}

test("text arrives whole wherever it is cut", () => {
  fc.assert(
    fc.property(fc.string({ unit: "binary", maxLength: 50 }), fc.array(fc.nat(200)), (text, places) => {
      expect(decodeInPieces(cut(new TextEncoder().encode(text), places))).toBe(text);
    }),
  );
});

test("what is not UTF-8 is decoded as if it had come at once", () => {
  const bytes = fc.array(
    fc.oneof(
      fc.constantFrom(0xe2, 0x82, 0xac, 0xf0, 0x9f, 0xed, 0xa0, 0xff, 0x41, 0xc3, 0xf4, 0x90),
      fc.nat(255),
    ),
    { maxLength: 30 },
  );
  fc.assert(
    fc.property(bytes, fc.array(fc.nat(60)), (values, places) => {
      const all = Uint8Array.from(values);
      expect(decodeInPieces(cut(all, places))).toBe(decode(all));
    }),
    { numRuns: 500 },
  );
});
