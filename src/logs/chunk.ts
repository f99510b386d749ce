import { LOG_LEVELS, LOG_SOURCES } from "../db/schema.ts";
import type { LogLevel, LogSource } from "../runtime/runtime.ts";

/** A line as it is kept. `seq` counts the lines of one environment from 1 and is what clients resume from. */
export interface StoredLine {
  seq: number;
  atMs: number;
  level: LogLevel;
  source: LogSource;
  message: string;
  generation: number;
}

/** Beyond this a line is cut. */
export const MAX_LINE_BYTES = 64 * 1024;
/** An empty line takes space too: a flood of them must not pass for nothing. */
const MIN_LINE_BYTES = 16;

/** What a line counts towards the limits: its message and its end. */
export function lineBytes(message: string): number {
  return Math.max(MIN_LINE_BYTES, Buffer.byteLength(message) + 1);
}

/** `message`, or its beginning and how much was cut. */
export function bounded(message: string): string {
  if (message.length * 3 <= MAX_LINE_BYTES) return message;
  const bytes = Buffer.from(message);
  if (bytes.length <= MAX_LINE_BYTES) return message;
  // A character that straddles the cut goes whole: in streaming mode the decoder holds it back.
  const kept = new TextDecoder().decode(bytes.subarray(0, MAX_LINE_BYTES - 64), { stream: true });
  return `${kept} … (${bytes.length - Buffer.byteLength(kept)} bytes of this line were cut)`;
}

/** Times that are apart by more than this are of clocks that disagree: they are left as they are. */
const LATE_MS = 60_000;

/**
 * Lines with times that don't run backwards. They come by several ways, the later ones of DevPocket itself, say,
 * before earlier ones of a container, and who asks for what there is since the last time is to miss none. A line
 * that is late gets the time of the one before it, the first that of `lastAtMs`.
 */
export function inOrder<Line extends { atMs: number }>(lines: readonly Line[], lastAtMs?: number): Line[] {
  let last = lastAtMs ?? Number.NEGATIVE_INFINITY;
  return lines.map((line) => {
    const isLate = line.atMs < last && last - line.atMs <= LATE_MS;
    if (!isLate) last = line.atMs;
    return isLate ? { ...line, atMs: last } : line;
  });
}

/** A run of lines that lie in one row. */
export interface Chunk {
  firstSeq: number;
  lastSeq: number;
  minAt: number;
  maxAt: number;
  bytes: number;
  /** The entries, joined by commas: two chunks are made one by joining them in the same way. */
  lines: string;
}

type Entry = [atMs: number, level: number, source: number, generation: number, message: string];

export function encodeChunk(lines: readonly StoredLine[], bytes: number): Chunk {
  let minAt = Number.POSITIVE_INFINITY;
  let maxAt = Number.NEGATIVE_INFINITY;
  const entries = lines.map((line) => {
    minAt = Math.min(minAt, line.atMs);
    maxAt = Math.max(maxAt, line.atMs);
    const entry: Entry = [
      line.atMs,
      LOG_LEVELS.indexOf(line.level),
      LOG_SOURCES.indexOf(line.source),
      line.generation,
      line.message,
    ];
    return JSON.stringify(entry);
  });
  const firstSeq = lines[0]?.seq ?? 0;
  return { firstSeq, lastSeq: firstSeq + lines.length - 1, minAt, maxAt, bytes, lines: entries.join(",") };
}

export function decodeChunk(chunk: Pick<Chunk, "firstSeq" | "lines">): StoredLine[] {
  // Nothing but encodeChunk writes the column.
  const entries = JSON.parse(`[${chunk.lines}]`) as Entry[];
  return entries.map(([atMs, level, source, generation, message], index) => ({
    seq: chunk.firstSeq + index,
    atMs,
    level: LOG_LEVELS[level] ?? "INFO",
    source: LOG_SOURCES[source] ?? "system",
    message,
    generation,
  }));
}
