import { TERMINAL_LIMITS } from "./limits.ts";

/**
 * Private modes that a client must have right before it shows output from some offset on (xterm's control
 * sequences, DECSET), and whether they are on in a fresh terminal.
 */
const MODES = new Map<number, boolean>([
  [1049, false], // alternate screen, cursor saved; first: the others belong to the screen that is shown
  [1047, false],
  [47, false],
  [1, false], // application cursor keys
  [7, true], // wrap at the margin
  [25, true], // cursor shown
  [66, false], // application keypad
  [9, false], // mouse reports, in five kinds and four encodings
  [1000, false],
  [1001, false],
  [1002, false],
  [1003, false],
  [1005, false],
  [1006, false],
  [1015, false],
  [1016, false],
  [1004, false], // focus reports
  [2004, false], // bracketed paste
]);
const KEYPAD = 66;

// biome-ignore lint/suspicious/noControlCharactersInRegex: escape sequences are what is looked for
const SEQUENCE = /\x1b(?:\[\?([\d;]+)([hl])|\][02];([^\x07\x1b]*)(?:\x07|\x1b\\)|([c=>]))/g;
// biome-ignore lint/suspicious/noControlCharactersInRegex: as above
const UNFINISHED = /\x1b(?:\[(?:\?[\d;]*)?|\](?:[02](?:;[^\x07\x1b]*\x1b?)?)?)?$/;
const MAX_UNFINISHED = 1024;
const ESC = 0x1b;
/** Changes of modes that are remembered with their place. */
const MAX_CHANGES = 4096;

interface Change {
  offset: number;
  mode: number;
  on: boolean;
}

/** What the output of a terminal says of its screen: title and modes, at any offset of the scrollback. */
export class Screen {
  title: string | null = null;
  /** Modes at the end of the output; one that was never touched is not in it. */
  readonly #current = new Map<number, boolean>();
  /** Modes before the first of `#changes`. */
  readonly #before = new Map<number, boolean>();
  readonly #changes: Change[] = [];
  /** A sequence that was cut by the end of a read, one character a byte. */
  #unfinished = "";

  /** Looks through `bytes`, the first of which has `offset`. */
  push(bytes: Uint8Array, offset: number): void {
    if (this.#unfinished === "" && !bytes.includes(ESC)) return;
    const read = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const text = this.#unfinished + read.toString("latin1");
    const textOffset = offset - this.#unfinished.length;
    for (const match of text.matchAll(SEQUENCE)) this.#see(match, textOffset + match.index);
    const rest = UNFINISHED.exec(text.slice(-MAX_UNFINISHED))?.[0] ?? "";
    this.#unfinished = rest.length < MAX_UNFINISHED ? rest : "";
  }

  /** What comes next has `offset` and does not follow on what came last; `modes` set what is missing has set. */
  skip(modes: string, offset: number): void {
    this.#unfinished = "";
    for (const match of modes.matchAll(SEQUENCE)) this.#see(match, offset - 1);
  }

  /**
   * What brings a client's terminal into the modes in effect at `offset`, whatever state it is in: ends a
   * sequence that was cut, resets attributes and margins (DECSTR), sets every mode that was ever touched.
   */
  restoreAt(offset: number): string {
    const modes = new Map(this.#before);
    for (const change of this.#changes) {
      if (change.offset < offset) modes.set(change.mode, change.on);
    }
    const sequences = [...MODES.keys()]
      .filter((mode) => modes.has(mode))
      .map((mode) => sequence(mode, modes));
    return `\x18\x1b[!p${sequences.join("")}`;
  }

  #see([, modes, letter, title, single]: RegExpExecArray, offset: number): void {
    if (title !== undefined) {
      this.title = Buffer.from(title, "latin1").toString().slice(0, TERMINAL_LIMITS.titleCharacters);
    } else if (modes !== undefined) {
      for (const mode of modes.split(";").map(Number)) this.#change(offset, mode, letter === "h");
    } else if (single === "c") {
      for (const mode of this.#current.keys()) this.#change(offset, mode, MODES.get(mode) === true);
    } else this.#change(offset, KEYPAD, single === "=");
  }

  #change(offset: number, mode: number, on: boolean): void {
    // What changes nothing must not push out what did.
    if (!MODES.has(mode) || this.#current.get(mode) === on) return;
    this.#current.set(mode, on);
    this.#changes.push({ offset, mode, on });
    if (this.#changes.length <= MAX_CHANGES) return;
    // What is forgotten too early lies within what is replayed, and comes into effect there again.
    for (const old of this.#changes.splice(0, MAX_CHANGES / 2)) this.#before.set(old.mode, old.on);
  }
}

function sequence(mode: number, modes: Map<number, boolean>): string {
  const on = modes.get(mode) === true;
  if (mode === KEYPAD) return on ? "\x1b=" : "\x1b>";
  return `\x1b[?${mode}${on ? "h" : "l"}`;
}
