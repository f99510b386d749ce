import {
  closeSync,
  existsSync,
  fstatSync,
  ftruncateSync,
  openSync,
  readdirSync,
  readSync,
  rmSync,
  writeSync,
} from "node:fs";
import { open } from "node:fs/promises";
import { join } from "node:path";
import * as v from "valibot";
import type { LogLevel, LogLine, LogSource } from "../runtime.ts";

/** An environment keeps at most this much of its log; the oldest file goes. */
const FILE_LIMIT_BYTES = 4 * 1024 * 1024;
const FILES = 4;
const READ_BYTES = 64 * 1024;
const LF = 0x0a;

export type JournalEntry = Omit<LogLine, "cursor">;

const Entry = v.tuple([
  v.number(),
  v.picklist(["DEBUG", "INFO", "WARN", "ERROR"]) satisfies v.GenericSchema<unknown, LogLevel>,
  v.picklist(["container", "application", "system"]) satisfies v.GenericSchema<unknown, LogSource>,
  v.number(),
  v.string(),
]);

interface Position {
  file: number;
  offset: number;
}

/**
 * The log of one environment: JSON lines in a few numbered files. A cursor is a file's number and the offset
 * behind a line, so it holds over restarts of the server. Nothing is given to a reader before it is written.
 */
export class Journal {
  readonly #folder: string;
  /** Where the next line goes; undefined until the files were looked at. */
  #end: Position | undefined;
  /** Where the lines of an earlier server end. */
  #found: Position = { file: 1, offset: 0 };
  #first = 1;
  #descriptor: number | undefined;
  readonly #waiting = new Set<() => void>();

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
    const bytes = Buffer.from(`${text}\n`);
    const end = this.#lookAtFiles();
    if (end.offset > 0 && end.offset + bytes.length > FILE_LIMIT_BYTES) this.#beginFile(end);
    this.#descriptor ??= openSync(this.#path(end.file), "a", 0o600);
    try {
      for (let at = 0; at < bytes.length; ) at += writeSync(this.#descriptor, bytes, at);
    } catch (error) {
      ftruncateSync(this.#descriptor, end.offset);
      throw error;
    }
    end.offset += bytes.length;
    this.wake();
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
    while (!signal.aborted) {
      const woken = this.#nextChange(signal);
      const over = isOver();
      yield* this.#readOn(at, signal);
      if (over && this.#isAtEnd(at)) return;
      if (this.#isAtEnd(at)) await woken;
    }
  }

  /**
   * Cursors are kept more safely than the files: after a power cut one may name a place that is no more, or
   * already lies within what was written since.
   */
  async #placeOf(cursor: string | null): Promise<Position> {
    const at = parseCursor(cursor);
    if (at.file > this.#lookAtFiles().file) return { file: 0, offset: 0 };
    const { file, offset } = this.#found;
    if (at.file !== file || at.offset <= offset) return at;
    const before = await readLines(this.#path(file), at.offset - 1, at.offset);
    return before.length > 0 ? at : { file, offset };
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

  async *#readOn(at: Position, signal: AbortSignal): AsyncGenerator<LogLine> {
    while (!signal.aborted && !this.#isAtEnd(at)) {
      if (at.file < this.#first) {
        at.file = this.#first;
        at.offset = 0;
        continue;
      }
      for (const line of await this.#readSome(at)) {
        yield line;
        if (signal.aborted) return;
      }
    }
  }

  /** Whole lines from `at` on, moving it. */
  async #readSome(at: Position): Promise<LogLine[]> {
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
      at.offset += until - from;
      const line = parseEntry(bytes.toString("utf8", from, until - 1), `${file}:${at.offset}`);
      if (line) lines.push(line);
      from = until;
    }
    return lines;
  }

  #lookAtFiles(): Position {
    if (this.#end) return this.#end;
    const numbers = existsSync(this.#folder)
      ? readdirSync(this.#folder)
          .map((name) => Number(/^log\.(\d+)\.jsonl$/.exec(name)?.[1]))
          .filter((number) => number > 0)
      : [];
    this.#first = numbers.length ? Math.min(...numbers) : 1;
    const file = numbers.length ? Math.max(...numbers) : 1;
    this.#found = { file, offset: numbers.length ? mendEnd(this.#path(file)) : 0 };
    this.#end = { ...this.#found };
    return this.#end;
  }

  #beginFile(end: Position): void {
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

/** A cursor that is none of ours reads from the beginning. */
function parseCursor(cursor: string | null): Position {
  const match = /^(\d{1,9}):(\d{1,12})$/.exec(cursor ?? "");
  return { file: Number(match?.[1] ?? 0), offset: Number(match?.[2] ?? 0) };
}

function parseEntry(text: string, cursor: string): LogLine | undefined {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    return undefined;
  }
  const parsed = v.safeParse(Entry, json);
  if (!parsed.success) return undefined;
  const [atMs, level, source, generation, message] = parsed.output;
  return { atMs, level, source, generation, message, cursor };
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
  const descriptor = openSync(path, "r+");
  try {
    const { size } = fstatSync(descriptor);
    const tail = Buffer.alloc(Math.min(size, FILE_LIMIT_BYTES));
    readSync(descriptor, tail, 0, tail.length, size - tail.length);
    const whole = size - tail.length + tail.lastIndexOf(LF) + 1;
    if (whole < size) ftruncateSync(descriptor, whole);
    return whole;
  } finally {
    closeSync(descriptor);
  }
}
