/*
 * From what a program prints to lines that can be shown in a log: text without control characters but for
 * colours (SGR sequences, ECMA-48 8.3.117), and the last state of a line that was written over.
 */

/** Longer lines are split here, in UTF-16 units; a line is as much memory as a reader ever holds. */
export const LINE_LIMIT_CHARS = 16 * 1024;

/** A control sequence longer than this is no sequence but garbage: it is dropped and text begins again. */
const SEQUENCE_LIMIT_CHARS = 4096;
const TAB_COLUMNS = 8;

const BEL = 0x07;
const TAB = 0x09;
const LF = 0x0a;
const CR = 0x0d;
const ESC = 0x1b;
const RS = 0x1e;

export interface LineReader {
  /** Takes bytes as they come; a character or sequence may be split over two calls. */
  push(bytes: Uint8Array): void;
  /** Gives what is left as a last line; the reader begins anew. */
  end(): void;
}

/**
 * A reader of one program's output. `\n` and `\r\n` end a line; after a bare `\r` the line begins anew, so
 * that a progress bar is its last state. A record separator (0x1e) begins a new line and is kept as its
 * first character: so begin the marks of the startup script, whatever stood before them.
 */
export function createLineReader(onLine: (line: string) => void): LineReader {
  const decoder = new TextDecoder();
  const cleaner = new LineCleaner(onLine);
  return {
    push: (bytes) => cleaner.push(decoder.decode(bytes, { stream: true })),
    end: () => {
      cleaner.push(decoder.decode());
      cleaner.end();
    },
  };
}

/** One line of text without its end, cleaned as a LineReader does; marks and over-long lines make several. */
export function cleanLine(text: string): string[] {
  const lines: string[] = [];
  const cleaner = new LineCleaner((line) => lines.push(line));
  cleaner.push(text);
  cleaner.end();
  return lines;
}

type State = "text" | "escape" | "csi" | "string" | "string-escape" | "charset";

class LineCleaner {
  readonly #onLine: (line: string) => void;
  #line = "";
  /** Columns taken, colours not counted. */
  #columns = 0;
  #returned = false;
  #state: State = "text";
  /** Parameters of the control sequence that is being read. */
  #sequence = "";

  constructor(onLine: (line: string) => void) {
    this.#onLine = onLine;
  }

  push(text: string): void {
    let at = 0;
    while (at < text.length) {
      if (this.#state === "text") {
        const end = endOfPlainText(text, at);
        if (end > at) this.#append(text.slice(at, end));
        at = end;
        if (at === text.length) return;
      }
      this.#control(text.charCodeAt(at), text.charAt(at));
      at++;
    }
  }

  end(): void {
    if (this.#line !== "") this.#emit();
    this.#state = "text";
    this.#sequence = "";
  }

  #append(text: string): void {
    if (this.#returned) this.#beginAnew();
    let rest = text;
    while (this.#line.length + rest.length > LINE_LIMIT_CHARS) {
      let room = LINE_LIMIT_CHARS - this.#line.length;
      if (isLowSurrogate(rest.charCodeAt(room))) room--;
      this.#line += rest.slice(0, Math.max(0, room));
      rest = rest.slice(Math.max(0, room));
      this.#emit();
    }
    this.#line += rest;
    this.#columns += rest.length;
  }

  #beginAnew(): void {
    this.#line = "";
    this.#columns = 0;
    this.#returned = false;
  }

  #emit(): void {
    const line = this.#line;
    this.#beginAnew();
    this.#onLine(line);
  }

  #control(code: number, character: string): void {
    switch (this.#state) {
      case "text":
        this.#controlCharacter(code);
        return;
      case "escape":
        this.#escape(code, character);
        return;
      case "charset":
        this.#state = "text";
        return;
      case "csi":
        this.#csi(code, character);
        return;
      case "string":
        this.#string(code);
        return;
      case "string-escape":
        this.#state = "text";
        if (character !== "\\") this.#escape(code, character);
    }
  }

  #controlCharacter(code: number): void {
    switch (code) {
      case LF:
        this.#returned = false;
        this.#emit();
        return;
      case CR:
        this.#returned = true;
        return;
      case TAB:
        this.#append(" ".repeat(TAB_COLUMNS - (this.#columns % TAB_COLUMNS)));
        return;
      case ESC:
        this.#state = "escape";
        return;
      case RS:
        this.#returned = false;
        if (this.#line !== "") this.#emit();
        this.#line = "\x1e";
        return;
      default: // All others print nothing in a log.
    }
  }

  #escape(code: number, character: string): void {
    this.#sequence = "";
    if (code < 0x20) {
      this.#state = "text";
      this.#controlCharacter(code);
    } else if (character === "[") this.#state = "csi";
    else if ("]PX^_".includes(character)) this.#state = "string";
    else if ("()*+-./ #%".includes(character)) this.#state = "charset";
    else this.#state = "text";
  }

  #csi(code: number, character: string): void {
    if (code < 0x20) {
      this.#state = "text";
      this.#controlCharacter(code);
    } else if (code >= 0x40) {
      this.#state = "text";
      if (character === "m" && /^[\d;:]*$/.test(this.#sequence))
        this.#appendColour(`\x1b[${this.#sequence}m`);
    } else {
      this.#sequence += character;
      if (this.#sequence.length > SEQUENCE_LIMIT_CHARS) this.#state = "text";
    }
  }

  #appendColour(sequence: string): void {
    const columns = this.#returned ? 0 : this.#columns;
    this.#append(sequence);
    this.#columns = columns;
  }

  /** OSC, DCS and their like: a window's title, a link. A line's end ends them too, lest one swallow the log. */
  #string(code: number): void {
    if (code === LF) {
      this.#state = "text";
      this.#controlCharacter(code);
    } else if (code === BEL || code === 0x9c) this.#state = "text";
    else if (code === ESC) this.#state = "string-escape";
    else {
      this.#sequence += " ";
      if (this.#sequence.length > SEQUENCE_LIMIT_CHARS) this.#state = "text";
    }
  }
}

function endOfPlainText(text: string, from: number): number {
  let at = from;
  while (at < text.length) {
    const code = text.charCodeAt(at);
    if (code < 0x20 || (code >= 0x7f && code <= 0x9f)) break;
    at++;
  }
  return at;
}

function isLowSurrogate(code: number): boolean {
  return code >= 0xdc00 && code <= 0xdfff;
}
