import type { LogSource } from "../runtime/runtime.ts";
import { type Chunk, encodeChunk, lineBytes, type StoredLine } from "./chunk.ts";

/*
 * The bookkeeping of one environment's log, without a database. Of its lines the first ones are kept for
 * good (the head) and the last ones (the tail); what lies between is dropped when the tail is full.
 */

export interface LogLimits {
  headBytes: number;
  /** At least so much of the end is kept, and at most two chunks more. */
  tailBytes: number;
  chunkBytes: number;
}

export const LOG_LIMITS: LogLimits = {
  headBytes: 1024 * 1024,
  tailBytes: 9 * 1024 * 1024,
  chunkBytes: 64 * 1024,
};

export interface Head {
  nextSeq: number;
  headBytes: number;
  tailBytes: number;
  /** First line after the head; null while the head has room. */
  headEnd: number | null;
  /** First line of the tail; the lines from `headEnd` up to it have been dropped. */
  tailSeq: number | null;
  droppedBytes: number;
  droppedAt: number | null;
  cursor: string | null;
  installationSeq: number | null;
  installationGeneration: number;
  lastOutput: LogSource | null;
}

export const EMPTY_HEAD: Readonly<Head> = {
  nextSeq: 1,
  headBytes: 0,
  tailBytes: 0,
  headEnd: null,
  tailSeq: null,
  droppedBytes: 0,
  droppedAt: null,
  cursor: null,
  installationSeq: null,
  installationGeneration: 0,
  lastOutput: null,
};

/**
 * Numbers `lines`, puts them into chunks none of which lies on both sides of the head's end, and counts
 * them in `head`.
 */
export function takeIn(head: Head, lines: readonly Omit<StoredLine, "seq">[], limits: LogLimits): Chunk[] {
  const chunks: Chunk[] = [];
  let run: StoredLine[] = [];
  let runBytes = 0;
  const endRun = () => {
    if (run.length > 0) chunks.push(encodeChunk(run, runBytes));
    run = [];
    runBytes = 0;
  };
  for (const line of lines) {
    const bytes = lineBytes(line.message);
    const seq = head.nextSeq++;
    noteInstallation(head, line, seq);
    if (head.headEnd === null && head.headBytes + bytes > limits.headBytes) {
      endRun();
      head.headEnd = seq;
      head.tailSeq = seq;
    } else if (runBytes + bytes > limits.chunkBytes) {
      endRun();
    }
    if (head.headEnd === null) head.headBytes += bytes;
    else head.tailBytes += bytes;
    run.push({ seq, ...line });
    runBytes += bytes;
  }
  endRun();
  return chunks;
}

/**
 * An installation begins where DevPocket says so (`beginInstallation`), and also where containers print
 * from their startup commands when nothing was said: those of a new generation, or the same ones after
 * the runtime has restarted them.
 */
function noteInstallation(head: Head, line: Omit<StoredLine, "seq">, seq: number): void {
  if (line.source === "system") return;
  if (line.source === "container" && startsOver(head, line.generation)) {
    head.installationSeq = seq;
    head.installationGeneration = line.generation;
  }
  head.lastOutput = line.source;
}

/** Marks the next line as the first of an installation, unless one of this generation is already going on. */
export function beginInstallation(head: Head, generation: number): void {
  if (!startsOver(head, generation)) return;
  head.installationSeq = head.nextSeq;
  head.installationGeneration = generation;
  head.lastOutput = null;
}

function startsOver(head: Head, generation: number): boolean {
  return generation > head.installationGeneration || head.lastOutput === "application";
}

/** Lines that have been dropped: from `headEnd` up to `tailSeq`. */
export function droppedLines(head: Head): number {
  return head.headEnd === null || head.tailSeq === null ? 0 : head.tailSeq - head.headEnd;
}

/** Lines that can be read, the one that stands for those that were dropped included. */
export function readableLines(head: Head): number {
  const dropped = droppedLines(head);
  return head.nextSeq - 1 - dropped + (dropped > 0 ? 1 : 0);
}

/** Lines that can be read after number `after`, counted as in `readableLines`. */
export function readableAfter(head: Head, after: number): number {
  const from = Math.max(0, after) + 1;
  const { headEnd, tailSeq } = head;
  const all = Math.max(0, head.nextSeq - from);
  if (headEnd === null || tailSeq === null || from >= tailSeq || headEnd === tailSeq) return all;
  return all - (tailSeq - Math.max(from, headEnd)) + 1;
}

/** The ranges of lines that are kept, oldest first: from, up to but without. */
export function keptRanges(head: Head): { from: number; before: number }[] {
  if (head.headEnd === null || head.tailSeq === null) return [{ from: 1, before: head.nextSeq }];
  return [
    { from: 1, before: head.headEnd },
    { from: head.tailSeq, before: head.nextSeq },
  ];
}

/**
 * The line that stands for dropped ones. It carries the number of the last of them, so that reading on
 * after it goes on with the first line of the tail.
 *
 * @param from the first line that the reader has not seen
 */
export function gapLine(head: Head, from: number): StoredLine | undefined {
  if (head.headEnd === null || head.tailSeq === null || head.tailSeq === head.headEnd) return undefined;
  const missing = head.tailSeq - Math.max(from, head.headEnd);
  const size = from <= head.headEnd ? ` (${readableBytes(head.droppedBytes)})` : "";
  return {
    seq: head.tailSeq - 1,
    atMs: head.droppedAt ?? 0,
    level: "WARN",
    source: "system",
    message: `… ${missing} ${missing === 1 ? "line is" : "lines are"} missing here${size}: of a long log the beginning and the end are kept`,
    generation: head.installationGeneration,
  };
}

function readableBytes(bytes: number): string {
  if (bytes < 1024) return `${bytes} bytes`;
  return bytes < 1024 * 1024
    ? `${(bytes / 1024).toFixed(1)} KiB`
    : `${(bytes / (1024 * 1024)).toFixed(1)} MiB`;
}
