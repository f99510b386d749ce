import { expect, test } from "bun:test";
import fc from "fast-check";
import { cleanLine, createLineReader, LINE_LIMIT_CHARS } from "../../src/runtime/lines.ts";

function linesOf(...chunks: (string | Uint8Array)[]): string[] {
  const lines: string[] = [];
  const reader = createLineReader((line) => lines.push(line));
  for (const chunk of chunks) reader.push(typeof chunk === "string" ? Buffer.from(chunk) : chunk);
  reader.end();
  return lines;
}

const TABLE: [string, string, string[]][] = [
  ["lines end with \\n", "a\nb\n", ["a", "b"]],
  ["the last line needs no end", "a\nb", ["a", "b"]],
  ["empty lines are kept", "a\n\nb\n", ["a", "", "b"]],
  ["\\r\\n is one end", "a\r\nb\r\n", ["a", "b"]],
  ["a terminal's \\r\\r\\n is one end", "a\r\r\nb", ["a", "b"]],
  ["a progress bar is its last state", " 10%\r 50%\r100%\n", ["100%"]],
  ["a progress bar that ends with \\r keeps its last state", "1/2\r2/2\r", ["2/2"]],
  ["colours stay", "\x1b[1;31mred\x1b[0m\n", ["\x1b[1;31mred\x1b[0m"]],
  ["other sequences go", "\x1b[2K\x1b[?25la\x1b[10;5Hb\x1b(Bc\x1b7d\x1b>e\n", ["abcde"]],
  ["titles and links go", "\x1b]0;title\x07a\x1b]8;;http://x\x1b\\b\x1bPdcs\x1b\\c\n", ["abc"]],
  ["a title without an end ends with the line", "a\x1b]0;title\nb\n", ["a", "b"]],
  ["private SGR look-alikes go", "\x1b[>4;2mx\x1b[?4my\n", ["xy"]],
  ["control characters go", "a\x00\x07\x08b\x7fc\u009bd\n", ["abcd"]],
  ["tabs become columns", "a\tb\n\tc\n", ["a       b", "        c"]],
  ["colours take no columns for a tab", "\x1b[31ma\tb\n", ["\x1b[31ma       b"]],
  ["a separator begins a line", "half\x1emark\nrest\n", ["half", "\x1emark", "rest"]],
  ["a separator after a progress bar keeps the bar", "50%\r\x1emark\n", ["50%", "\x1emark"]],
];

for (const [name, input, expected] of TABLE) {
  test(name, () => {
    expect(linesOf(input)).toEqual(expected);
  });

  test(`${name}, a byte at a time`, () => {
    expect(linesOf(...Array.from(Buffer.from(input), (byte) => Uint8Array.of(byte)))).toEqual(expected);
  });
}

test("a character split over two reads arrives whole", () => {
  const bytes = Buffer.from("grüße 👋🏽 終端\n");
  for (let at = 0; at <= bytes.length; at++) {
    expect(linesOf(bytes.subarray(0, at), bytes.subarray(at))).toEqual(["grüße 👋🏽 終端"]);
  }
});

test("what is not UTF-8 becomes a replacement character", () => {
  expect(linesOf(Uint8Array.of(0x61, 0xff, 0x62, 0x0a))).toEqual(["a\ufffdb"]);
});

test("a line over the limit is split and nothing of it is lost", () => {
  const long = `${"x".repeat(LINE_LIMIT_CHARS - 1)}👋${"y".repeat(LINE_LIMIT_CHARS * 2)}`;
  const lines = linesOf(`${long}\n`);
  expect(lines.length).toBe(4);
  expect(lines.every((line) => line.length <= LINE_LIMIT_CHARS && line.isWellFormed())).toBe(true);
  expect(lines.join("")).toBe(long);
});

test("however the bytes are cut, the lines are the same and hold no control characters", () => {
  const piece = fc.oneof(
    fc.string({ unit: "binary" }),
    fc.constantFrom("\n", "\r", "\r\n", "\x1b[31m", "\x1b]0;t\x07", "\x1b", "\x1b[", "\x1e", "\t", "é", "👋"),
  );
  fc.assert(
    fc.property(fc.array(piece), fc.array(fc.nat(50)), (pieces, cuts) => {
      const bytes = Buffer.from(pieces.join(""));
      const chunks: Uint8Array[] = [];
      let at = 0;
      for (const cut of cuts) {
        chunks.push(bytes.subarray(at, at + cut));
        at += cut;
      }
      chunks.push(bytes.subarray(at));
      const lines = linesOf(...chunks);
      expect(lines).toEqual(linesOf(bytes));
      for (const line of lines) {
        const text = line.startsWith("\x1e") ? line.slice(1) : line;
        const [plain = "", ...coloured] = text.split("\x1b[");
        expect(plain).not.toMatch(/\p{Cc}/u);
        for (const part of coloured) expect(part).toMatch(/^[\d;:]*m\P{Cc}*$/u);
      }
    }),
  );
});

test("one line of text is cleaned in the same way", () => {
  expect(cleanLine("10%\r\x1b[32m100%\x1b[0m\x07")).toEqual(["\x1b[32m100%\x1b[0m"]);
  expect(cleanLine("a\x1eb")).toEqual(["a", "\x1eb"]);
  expect(cleanLine("")).toEqual([]);
});
