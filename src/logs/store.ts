import { type Db, inTransaction, type Tx } from "../db/open.ts";
import { lazily } from "../lib/lazily.ts";
import type { LogLevel, LogLine } from "../runtime/runtime.ts";
import { bounded, decodeChunk, inOrder, type StoredLine } from "./chunk.ts";
import {
  beginInstallation,
  droppedLines,
  EMPTY_HEAD,
  gapLine,
  type Head,
  keptRanges,
  LOG_LIMITS,
  type LogLimits,
  readableAfter,
  readableLines,
  takeIn,
} from "./head.ts";
import { prepareStatements } from "./statements.ts";

/** A last row smaller than this is added to: SQLite would write the page that it lies on anyway. */
const EXTEND_BELOW_BYTES = 4096;

export interface SystemLine {
  /** Several lines are kept as several. */
  message: string;
  generation: number;
  level?: LogLevel;
  /** The containers are being started: what follows is the log of a new installation. */
  beginsInstallation?: boolean;
}

export interface Excerpt {
  /** Oldest first. */
  lines: StoredLine[];
  /** How many there are of what was asked for, returned or not. */
  total: number;
}

export type LogStore = ReturnType<typeof createLogStore>;

/** The logs of all environments. Every method is synchronous; what it has written is committed. */
export function createLogStore(db: Db, now: () => number = Date.now, limits: LogLimits = LOG_LIMITS) {
  const statements = lazily(() => prepareStatements(db));
  const listeners = new Map<string, Set<() => void>>();

  function load(environmentId: string): Head {
    return statements().head.get({ environmentId }) ?? { ...EMPTY_HEAD };
  }

  function write(environmentId: string, head: Head, lines: readonly Omit<StoredLine, "seq">[]): void {
    const last = statements().lastChunkBefore.get({ environmentId, from: 1, before: head.nextSeq });
    const chunks = takeIn(head, inOrder(lines, last?.maxAt), limits);
    const first = chunks[0];
    if (first && last && last.bytes < EXTEND_BELOW_BYTES && first.firstSeq !== head.headEnd) {
      statements().extend.run({ environmentId, into: last.firstSeq, ...first });
      chunks.shift();
    }
    for (const chunk of chunks) statements().insert.run({ environmentId, ...chunk });
    if (head.tailBytes >= limits.tailBytes + limits.chunkBytes) trim(environmentId, head);
    statements().saveHead.run({ environmentId, ...head });
  }

  /** Drops the tail's oldest chunks; called only once a whole chunk is over, so each row costs one delete. */
  function trim(environmentId: string, head: Head): void {
    const from = head.tailSeq ?? head.nextSeq;
    let before = from;
    for (;;) {
      const oldest = statements().nextChunk.get({ environmentId, from: before });
      if (!oldest || head.tailBytes - oldest.bytes < limits.tailBytes) break;
      head.tailBytes -= oldest.bytes;
      head.droppedBytes += oldest.bytes;
      head.droppedAt = oldest.maxAt;
      before = oldest.lastSeq + 1;
    }
    head.tailSeq = before;
    statements().remove.run({ environmentId, from, before });
  }

  /** Followers are told after the commit: transactions are synchronous, a microtask runs after them. */
  function notify(environmentId: string): void {
    if (!listeners.has(environmentId)) return;
    queueMicrotask(() => {
      for (const listener of listeners.get(environmentId) ?? []) listener();
    });
  }

  function lastOf(
    environmentId: string,
    range: { from: number; before: number },
    count: number,
    since: number,
  ) {
    const runs: StoredLine[][] = [];
    let missing = count;
    let before = range.before;
    while (missing > 0) {
      const chunk = statements().lastChunkSince.get({ environmentId, from: range.from, before, since });
      if (!chunk) break;
      const lines = decodeChunk(chunk).filter((line) => line.atMs >= since);
      const run = lines.slice(-missing);
      runs.unshift(run);
      missing -= run.length;
      before = chunk.firstSeq;
    }
    return runs.flat();
  }

  function countSince(environmentId: string, head: Head, since: number): number {
    const whole = statements().countSince.get({ environmentId, since })?.lines ?? 0;
    const partly = statements()
      .chunksAround.all({ environmentId, since })
      .reduce((sum, chunk) => sum + decodeChunk(chunk).filter((line) => line.atMs >= since).length, 0);
    return whole + partly + (droppedLines(head) > 0 && (head.droppedAt ?? 0) >= since ? 1 : 0);
  }

  function readAfter(environmentId: string, after: number): StoredLine[] {
    const head = load(environmentId);
    const from = Math.max(0, after) + 1;
    if (from >= head.nextSeq) return [];
    if (head.headEnd !== null && head.tailSeq !== null && from >= head.headEnd && from < head.tailSeq) {
      const gap = gapLine(head, from);
      return gap ? [gap] : [];
    }
    const chunk = statements().chunkWith.get({ environmentId, seq: from });
    return chunk ? decodeChunk(chunk).slice(from - chunk.firstSeq) : [];
  }

  return {
    /**
     * Adds lines of the runtime, and with them, in one transaction, where its log goes on: a process that
     * is killed at any instant has neither lost a line nor will it take one twice.
     */
    append(environmentId: string, lines: readonly LogLine[]): void {
      const last = lines.at(-1);
      if (!last) return;
      const entries = lines.map(({ cursor: _, message, ...line }) => ({
        ...line,
        message: bounded(message),
      }));
      inTransaction(db, () => {
        const head = load(environmentId);
        head.cursor = last.cursor;
        write(environmentId, head, entries);
      });
      notify(environmentId);
    },

    /** Adds what DevPocket itself has to say. With `tx` it stands or falls with the caller's transaction. */
    appendSystem(environmentId: string, line: SystemLine, tx?: Tx): void {
      const { generation, level = "INFO", beginsInstallation: begins = false } = line;
      const atMs = now();
      const entries = line.message.split(/\r?\n/).map((message) => ({
        atMs,
        level,
        source: "system" as const,
        message: bounded(message),
        generation,
      }));
      const work = () => {
        const head = load(environmentId);
        if (begins) beginInstallation(head, generation);
        write(environmentId, head, entries);
      };
      if (tx) work();
      else inTransaction(db, work);
      notify(environmentId);
    },

    /** Where the runtime's log goes on; null: at its beginning. */
    cursor(environmentId: string): string | null {
      return load(environmentId).cursor;
    },

    /**
     * The next lines after number `after`, some hundred at most; none when there are no more. Where lines
     * have been dropped, one says how many.
     */
    readAfter,

    /** The first `count` lines after number `after`; `total` counts all that there are after it. */
    readNext(environmentId: string, count: number, after: number): Excerpt {
      const total = readableAfter(load(environmentId), after);
      const lines: StoredLine[] = [];
      for (let batch = readAfter(environmentId, after); batch.length > 0 && lines.length < count; ) {
        lines.push(...batch);
        batch = readAfter(environmentId, lines.at(-1)?.seq ?? after);
      }
      return { lines: lines.slice(0, count), total };
    },

    /** The last `count` lines, of those at or after `sinceMs` when it is given. */
    readLast(environmentId: string, count: number, sinceMs?: number): Excerpt {
      const head = load(environmentId);
      const since = sinceMs ?? Number.MIN_SAFE_INTEGER;
      const gap = gapLine(head, 1);
      let lines: StoredLine[] = [];
      for (const range of keptRanges(head).reverse()) {
        lines = [...lastOf(environmentId, range, count - lines.length, since), ...lines];
        if (range.from === head.tailSeq && gap && gap.atMs >= since) lines.unshift(gap);
      }
      const total = sinceMs === undefined ? readableLines(head) : countSince(environmentId, head, since);
      return { lines: lines.slice(-count), total };
    },

    /** Number of the last line; 0 when there is none. */
    lastSeq(environmentId: string): number {
      return load(environmentId).nextSeq - 1;
    },

    /** Reading on after this number gives everything since the last installation began. */
    beforeInstallation(environmentId: string): number {
      return (load(environmentId).installationSeq ?? 1) - 1;
    },

    /** How many environments are being listened to. */
    get listenedTo(): number {
      return listeners.size;
    },

    /** Calls `listener` after lines of the environment may have been added. Returns what ends it. */
    subscribe(environmentId: string, listener: () => void): () => void {
      const own = listeners.get(environmentId) ?? new Set();
      listeners.set(environmentId, own.add(listener));
      return () => {
        own.delete(listener);
        if (own.size === 0 && listeners.get(environmentId) === own) listeners.delete(environmentId);
      };
    },
  };
}
