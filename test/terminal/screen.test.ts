import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { Screen } from "../../src/terminal/screen.ts";

function screenOf(...pieces: string[]): Screen {
  const screen = new Screen();
  let offset = 0;
  for (const piece of pieces) {
    const bytes = Buffer.from(piece);
    screen.push(bytes, offset);
    offset += bytes.length;
  }
  return screen;
}

/** Modes that `restore` switches on and off. */
function modes(restore: string): { on: number[]; off: number[] } {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: escape sequences are what is looked for
  const found = [...restore.matchAll(/\x1b\[\?(\d+)([hl])/g)];
  const of = (letter: string) =>
    found.filter((match) => match[2] === letter).map((match) => Number(match[1]));
  return { on: of("h"), off: of("l") };
}

describe("title", () => {
  test.each<[string, string[], string | null]>([
    ["none", ["hello"], null],
    ["ended by BEL", ["\x1b]0;vim notes\x07"], "vim notes"],
    ["ended by ST", ["\x1b]2;vim notes\x1b\\"], "vim notes"],
    ["the last one", ["\x1b]0;one\x07\x1b]0;two\x07"], "two"],
    ["an icon name is none", ["\x1b]1;icon\x07"], null],
    ["in UTF-8", ["\x1b]0;größe – 日本\x07"], "größe – 日本"],
    ["over two reads", ["text \x1b]0;vim", " notes\x07more"], "vim notes"],
    ["over many reads", [..."a\x1b]0;x y\x1b\\b"], "x y"],
    ["empty", ["\x1b]0;a\x07\x1b]0;\x07"], ""],
    ["cut at a limit", [`\x1b]0;${"x".repeat(500)}\x07`], "x".repeat(256)],
    ["of absurd length: ignored", [`\x1b]0;${"x".repeat(5000)}`, "\x07 and on"], null],
  ])("%s", (_what, pieces, title) => {
    expect(screenOf(...pieces).title).toBe(title);
  });
});

describe("modes", () => {
  const vim = "$ vim\r\n\x1b[?1049h\x1b[?1h\x1b=\x1b[?2004h\x1b[?25l~\x1b[?25h";
  const left = `${vim}\x1b[?2004l\x1b[?1l\x1b>\x1b[?1049l`;

  test.each<[string, string, { on: number[]; off: number[] }]>([
    ["before anything", "hello", { on: [], off: [] }],
    ["in vim", vim, { on: [1049, 1, 25, 2004], off: [] }],
    ["after vim", left, { on: [25], off: [1049, 1, 2004] }],
    ["several at once", "\x1b[?1000;1006h", { on: [1000, 1006], off: [] }],
    ["after a full reset", "\x1b[?1000h\x1b[?25l\x1bc", { on: [25], off: [1000] }],
    ["those that are none of ours", "\x1b[?12h\x1b[?2026h\x1b[4h", { on: [], off: [] }],
  ])("%s", (_what, output, expected) => {
    expect(modes(screenOf(output).restoreAt(output.length))).toEqual(expected);
  });

  test("are those in effect at an offset, not at the end", () => {
    const screen = screenOf(left);
    expect(modes(screen.restoreAt(0))).toEqual({ on: [], off: [] });
    expect(modes(screen.restoreAt(vim.length))).toEqual({ on: [1049, 1, 25, 2004], off: [] });
    expect(screen.restoreAt(vim.length)).toContain("\x1b=");
  });

  test("are the same wherever reads are cut", () => {
    fc.assert(
      fc.property(fc.array(fc.nat(left.length), { maxLength: 10 }), fc.nat(left.length), (places, at) => {
        const cuts = [0, ...places.sort((a, b) => a - b), left.length];
        const pieces = cuts.slice(1).map((to, n) => left.slice(cuts[n], to));
        expect(screenOf(...pieces).restoreAt(at)).toBe(screenOf(left).restoreAt(at));
      }),
    );
  });

  test("of endless changes take no endless memory, and are right at the end", () => {
    const screen = new Screen();
    const flicker = Buffer.from("\x1b[?25l\x1b[?25h".repeat(10_000));
    for (let n = 0; n < 20; n++) screen.push(flicker, n * flicker.length);
    expect(modes(screen.restoreAt(20 * flicker.length))).toEqual({ on: [25], off: [] });
  });

  test.each(["\x1bc", "\x1b[?25h", "\x1b>"])(
    "are remembered where they changed: %j may come for ever",
    (same) => {
      const changes = "\x1b[?25l\x1b=\x1b[?1049h";
      const screen = screenOf(changes, "\x1bc", same.repeat(10_000));
      expect(modes(screen.restoreAt(1))).toEqual({ on: [], off: [25] });
      expect(modes(screen.restoreAt(changes.length))).toEqual({ on: [1049], off: [25] });
    },
  );
});

test("what is missing has set modes and the title", () => {
  const screen = screenOf("\x1b[?1h\x1b[?25");
  screen.skip("\x1b[?1l\x1b[?1049h\x1b]2;editor\x07", 1000);
  screen.push(Buffer.from("l\x1b[?2004h"), 1000);
  expect(screen.title).toBe("editor");
  expect(modes(screen.restoreAt(1000))).toEqual({ on: [1049], off: [1] });
  expect(modes(screen.restoreAt(1010))).toEqual({ on: [1049, 2004], off: [1] });
});
