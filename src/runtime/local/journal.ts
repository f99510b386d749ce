import {
  closeSync,
  existsSync,
  ftruncateSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeSync,
} from "node:fs";
import { open } from "node:fs/promises";
import { join } from "node:path";
import * as v from "valibot";
import type { LogLevel, LogLine, LogSource } from "../runtime.ts";

/** An environment keeps at most this much of its log; the oldest file goes. */
const FILE_LIMIT_BYTES = 4 * 1024 * 1024;
const FILES = 4;
/** A reader is not to fall further behind: for what is on its way then, the files have twice as much room. */
const BEHIND_BYTES = FILE_LIMIT_BYTES;
const READ_BYTES = 64 * 1024;
const LF = 0x0a;

const BEGINNING: Place = { file: 0, offset: 0, lines: 0, missing: 0, isGiving: false };

export type JournalEntry = Omit<LogLine, "cursor">;

const Entry = v.tuple([
  v.number(),
  v.picklist(["DEBUG", "INFO", "WARN", "ERROR"]) satisfies v.GenericSchema<unknown, LogLevel>,
  v.picklist(["container", "application", "system"]) satisfies v.GenericSchema<unknown, LogSource>,
  v.number(),
  v.string(),
]);

/** What a file begins with: how many lines there were before it. */
const Head = v.strictTuple([v.number()]);

interface Position {
  file: number;
  offset: number;
}

/** A place and how many lines were ever written before it. */
interface End extends Position {
  lines: number;
}

interface Place extends Position {
  /** As in `End`; null: not known. */
  lines: number | null;
  /** How many of them were not there any more, and it was not told so yet. */
  missing: number;
  /** What lies before it is still being given. */
  isGiving: boolean;
}

/**
 * The log of one environment: JSON lines in a few numbered files. A cursor is a file's number, the offset
 * behind a line and the number of that line, so it holds over restarts of the server, and a reader whose file
 * has gone is told how many lines it has missed. Nothing is given to a reader before it is written.
 */
export class Journal {
  readonly #folder: string;
  /** Where the next line goes; undefined until the files were looked at. */
  #end: End | undefined;
  /** Where the lines of an earlier server end. */
  #found: End = { file: 1, offset: 0, lines: 0 };
  #first = 1;
  #descriptor: number | undefined;
  readonly #waiting = new Set<() => void>();
  readonly #readers = new Set<Place>();
  #caughtUp: PromiseWithResolvers<void> | null = null;
  #taken: PromiseWithResolvers<void> | null = null;

  constructor(folder: string) {
    this.#folder = folder;
  }

  /** Throws what writing throws (a full disk, for one), and has then written nothing. */
  append(entries: readonly JournalEntry[]): void {
    if (entries.length === 0) return;
    const text = entries
      .map(({ atMs, level, source, generation, message }) =>
        JSON.stringify([atMs, level, source, generation, message]),
      )
      .join("\n");
    const end = this.#lookAtFiles();
    if (end.offset > 0 && end.offset + Buffer.byteLength(text) >= FILE_LIMIT_BYTES) this.#beginFile(end);
    const head = end.offset === 0 ? `[${end.lines}]\n` : "";
    const bytes = Buffer.from(`${head}${text}\n`);
    this.#descriptor ??= openSync(this.#path(end.file), "a", 0o600);
    try {
      for (let at = 0; at < bytes.length; ) at += writeSync(this.#descriptor, bytes, at);
    } catch (error) {
      ftruncateSync(this.#descriptor, end.offset);
      throw error;
    }
    end.offset += bytes.length;
    end.lines += entries.length;
    this.wake();
  }

  /** When no reader is so far behind any more that whoever writes should wait for it. Null: now. */
  caughtUp(): Promise<void> | null {
    if (!this.#isReadLate) return null;
    this.#caughtUp ??= Promise.withResolvers();
    return this.#caughtUp.promise;
  }

  /** When every reader has taken all that is written. Null: they have, or there is none. */
  taken(): Promise<void> | null {
    if (this.#isTaken) return null;
    this.#taken ??= Promise.withResolvers();
    return this.#taken.promise;
  }

  get #isTaken(): boolean {
    for (const at of this.#readers) if (at.isGiving || !this.#isAtEnd(at)) return false;
    return true;
  }

  #tellTaken(): void {
    if (!this.#taken || !this.#isTaken) return;
    this.#taken.resolve();
    this.#taken = null;
  }

  get #isReadLate(): boolean {
    const end = this.#lookAtFiles();
    for (const at of this.#readers) {
      const isOverdue = at.file < this.#first;
      const behind = (end.file - at.file) * FILE_LIMIT_BYTES + end.offset - at.offset;
      if (isOverdue || behind > BEHIND_BYTES) return true;
    }
    return false;
  }

  #tellCaughtUp(): void {
    if (!this.#caughtUp || this.#isReadLate) return;
    this.#caughtUp.resolve();
    this.#caughtUp = null;
  }

  /** Lets go of the file; a later `append` opens it again. */
  close(): void {
    if (this.#descriptor !== undefined) closeSync(this.#descriptor);
    this.#descriptor = undefined;
    this.wake();
  }

  /** Makes readers look whether they are at their end. */
  wake(): void {
    for (const wake of this.#waiting) wake();
    this.#waiting.clear();
  }

  /** Lines after `after`, then those that come, until `signal` aborts or `isOver` says so with all given. */
  async *read(after: string | null, signal: AbortSignal, isOver: () => boolean): AsyncGenerator<LogLine> {
    const at = await this.#placeOf(after);
    this.#readers.add(at);
    try {
      while (!signal.aborted) {
        const woken = this.#nextChange(signal);
        const over = isOver();
        yield* this.#readOn(at, signal);
        if (over && this.#isAtEnd(at)) return;
        if (this.#isAtEnd(at)) await woken;
      }
    } finally {
      this.#readers.delete(at);
      this.#tellCaughtUp();
      this.#tellTaken();
    }
  }

  /**
   * Cursors are kept more safely than the files: after a power cut one may name a place that is no more, or
   * already lies within what was written since.
   */
  async #placeOf(cursor: string | null): Promise<Place> {
    const at = parseCursor(cursor);
    // Lines that are given once more are not missing.
    if (at.file > this.#lookAtFiles().file) return { ...BEGINNING, lines: null };
    const { file, offset } = this.#found;
    if (at.file !== file || at.offset <= offset || file < this.#first) return at;
    const before = await readLines(this.#path(file), at.offset - 1, at.offset);
    return before.length > 0 ? at : { ...this.#found, missing: 0, isGiving: false };
  }

  #nextChange(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const done = () => {
        signal.removeEventListener("abort", done);
        this.#waiting.delete(done);
        resolve();
      };
      this.#waiting.add(done);
      signal.addEventListener("abort", done, { once: true });
    });
  }

  #isAtEnd(at: Position): boolean {
    const end = this.#lookAtFiles();
    return at.file > end.file || (at.file === end.file && at.offset >= end.offset);
  }

  async *#readOn(at: Place, signal: AbortSignal): AsyncGenerator<LogLine> {
    while (!signal.aborted && !this.#isAtEnd(at)) {
      if (at.file < this.#first) {
        at.file = this.#first;
        at.offset = 0;
        continue;
      }
      at.isGiving = true;
      const lines = await this.#readSome(at);
      this.#tellCaughtUp();
      for (const line of lines) {
        yield line;
        if (signal.aborted) return;
      }
      at.isGiving = false;
      this.#tellTaken();
    }
  }

  /** Whole lines from `at` on, moving it. */
  async #readSome(at: Place): Promise<LogLine[]> {
    const end = this.#lookAtFiles();
    const file = at.file;
    const isLast = file === end.file;
    const limit = isLast ? end.offset : Number.POSITIVE_INFINITY;
    const bytes = await readLines(this.#path(file), at.offset, limit);
    if (bytes.length === 0) {
      // Read to its end, or gone meanwhile. The last file may have nothing in it yet.
      at.file = isLast ? file : Math.max(file + 1, this.#first);
      at.offset = isLast ? limit : 0;
      return [];
    }
    const lines: LogLine[] = [];
    for (let from = 0; from < bytes.length; ) {
      const until = bytes.indexOf(LF, from) + 1;
      const json = parseJson(bytes.toString("utf8", from, until - 1));
      const before = at.offset === 0 ? linesBefore(json) : undefined;
      const begin = cursorOf(at);
      at.offset += until - from;
      from = until;
      if (before !== undefined) {
        at.missing += before - (at.lines ?? before);
        at.lines = before;
        continue;
      }
      if (at.lines !== null) at.lines += 1;
      const line = parseEntry(json, cursorOf(at));
      if (!line) continue;
      if (at.missing > 0) lines.push(gapBefore(line, at.missing, begin));
      at.missing = 0;
      lines.push(line);
    }
    return lines;
  }

  #lookAtFiles(): End {
    if (this.#end) return this.#end;
    const numbers = existsSync(this.#folder)
      ? readdirSync(this.#folder)
          .map((name) => Number(/^log\.(\d+)\.jsonl$/.exec(name)?.[1]))
          .filter((number) => number > 0)
          .sort((a, b) => b - a)
      : [];
    this.#first = numbers.at(-1) ?? 1;
    const file = numbers[0] ?? 1;
    const offset = numbers.length ? mendEnd(this.#path(file)) : 0;
    // One that was only just begun says nothing of those before.
    const said = numbers.find((number) => number < file || offset > 0);
    this.#found = { file, offset, lines: said === undefined ? 0 : countLines(this.#path(said)) };
    this.#end = { ...this.#found };
    return this.#end;
  }

  #beginFile(end: End): void {
    if (this.#descriptor !== undefined) closeSync(this.#descriptor);
    this.#descriptor = undefined;
    end.file++;
    end.offset = 0;
    for (; this.#first <= end.file - FILES; this.#first++) rmSync(this.#path(this.#first), { force: true });
  }

  #path(file: number): string {
    return join(this.#folder, `log.${file}.jsonl`);
  }
}

/** A cursor that is none of ours reads from the beginning; one of an earlier version does not say its line. */
function parseCursor(cursor: string | null): Place {
  const match = /^(\d{1,9}):(\d{1,12})(?::(\d{1,15}))?$/.exec(cursor ?? "");
  if (!match) return { ...BEGINNING };
  const [, file, offset, line] = match;
  const lines = line === undefined ? null : Number(line);
  return { ...BEGINNING, file: Number(file), offset: Number(offset), lines };
}

function cursorOf({ file, offset, lines }: Place): string {
  return lines === null ? `${file}:${offset}` : `${file}:${offset}:${lines}`;
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function linesBefore(json: unknown): number | undefined {
  const head = v.safeParse(Head, json);
  return head.success ? head.output[0] : undefined;
}

function parseEntry(json: unknown, cursor: string): LogLine | undefined {
  const parsed = v.safeParse(Entry, json);
  if (!parsed.success) return undefined;
  const [atMs, level, source, generation, message] = parsed.output;
  return { atMs, level, source, generation, message, cursor };
}

function gapBefore({ atMs, generation }: LogLine, missing: number, cursor: string): LogLine {
  const message = `… ${missing} ${missing === 1 ? "line is" : "lines are"} missing here: they came faster than they were read`;
  return { atMs, level: "WARN", source: "system", generation, message, cursor };
}

/** Whole lines of the file from `offset` up to `limit`: at least one if there is one. Empty if it is gone. */
async function readLines(path: string, offset: number, limit: number): Promise<Buffer> {
  const file = await open(path, "r").catch(() => undefined);
  if (!file) return Buffer.alloc(0);
  try {
    for (let size = READ_BYTES; ; size *= 4) {
      const wanted = Math.min(size, limit - offset);
      const { bytesRead, buffer } = await file.read(Buffer.alloc(wanted), 0, wanted, offset);
      const end = buffer.subarray(0, bytesRead).lastIndexOf(LF) + 1;
      if (end > 0 || bytesRead < size) return buffer.subarray(0, end);
    }
  } finally {
    await file.close();
  }
}

/** Cuts off a line that a killed server has not written to its end; gives the file's size. */
function mendEnd(path: string): number {
  const bytes = readFileSync(path);
  const whole = bytes.lastIndexOf(LF) + 1;
  if (whole < bytes.length) truncateSync(path, whole);
  return whole;
}

/** How many lines were ever written up to the end of the file. */
function countLines(path: string): number {
  const bytes = readFileSync(path);
  const head = bytes.indexOf(LF);
  const before = linesBefore(parseJson(bytes.toString("utf8", 0, Math.max(0, head))));
  let lines = before ?? 0;
  for (let at = before === undefined ? -1 : head; ; lines++) {
    at = bytes.indexOf(LF, at + 1);
    if (at === -1) return lines;
  }
}
