import { expect, test } from "bun:test";
import fc from "fast-check";
import { KeptInput } from "../../src/connect/input.ts";

const contentOf = (kept: KeptInput) => Buffer.concat([...kept]).toString();

test("input is kept from the first byte on that was not taken, wherever pieces begin", () => {
  fc.assert(
    fc.property(
      fc.array(fc.oneof(fc.string({ unit: "binary-ascii" }), fc.nat(30))),
      fc.nat(1000),
      (steps, offset) => {
        const kept = new KeptInput();
        kept.goTo("shell", offset);
        let typed = "";
        let taken = 0;
        for (const step of steps) {
          if (typeof step === "string") {
            typed += step;
            kept.push(Buffer.from(step));
          } else {
            taken = Math.min(typed.length, taken + step);
            kept.take(offset + taken);
          }
          expect(contentOf(kept)).toBe(typed.slice(taken));
          expect(kept.bytes).toBe(typed.length - taken);
        }
      },
    ),
  );
});

test("a repeated or an older acknowledgement takes nothing", () => {
  const kept = new KeptInput();
  kept.push(Buffer.from("abcdef"));
  for (const offset of [4, 4, 2, 0]) kept.take(offset);
  expect(contentOf(kept)).toBe("ef");
});

test.each([
  { into: "the first shell", before: null, shell: "a", offset: 7, kept: "abcdef" },
  { into: "the same shell", before: "a", shell: "a", offset: 9, kept: "cdef" },
  { into: "another shell", before: "a", shell: "b", offset: 0, kept: "" },
  { into: "the same shell that has forgotten us", before: "a", shell: "a", offset: 0, kept: "" },
])("into $into goes what it is to get", ({ before, shell, offset, kept: expected }) => {
  const kept = new KeptInput();
  if (before !== null) kept.goTo(before, 7);
  kept.push(Buffer.from("abcdef"));
  kept.goTo(shell, offset);
  expect(contentOf(kept)).toBe(expected);
  kept.push(Buffer.from("more"));
  kept.take(offset + 1);
  expect(contentOf(kept)).toBe(`${expected}more`.slice(1));
});

test("into another shell over the same connection goes what it has not taken yet, and nothing is kept besides", () => {
  const kept = new KeptInput();
  kept.goTo("a", 7);
  kept.push(Buffer.from("abcdef"));
  kept.goOn("b", 10);
  expect(contentOf(kept)).toBe("def");
  kept.take(12);
  expect(contentOf(kept)).toBe("f");
  kept.goTo("b", 13);
  expect(contentOf(kept)).toBe("");
});
