import type { PodLogLine } from "./podlog.ts";

/*
 * Where a reader is in an environment's log: in a container's lines and in the Kubernetes events, each on
 * its own. A container's log can only be asked for from a whole second on, and two lines may carry the same
 * time or, of standard output and error, times in the other order. So a position counts lines: how many of
 * those from a certain second on have been given, in the order of the file. Of a long line, written in pieces,
 * what is asked for may be the end alone: so a line is of the second of its last piece.
 */

type TimedLine = Pick<PodLogLine, "atNs" | "untilNs">;

export interface ContainerPosition {
  podUid: string;
  /** What is left of pods made before has been read. 0: not known. */
  podCreatedMs: number;
  restartCount: number;
  /** The latest time of a line that was given, in nanoseconds. */
  latestNs: bigint;
  /** How many lines from `sinceSeconds` on have been given. */
  lines: number;
  /** How many lines of the next one have been given, where one line became several. */
  parts: number;
  /** The startup commands are done: what follows is the application's. */
  installed: boolean;
}

export interface Position {
  container: ContainerPosition | null;
  /** Events up to this resource version have been given. */
  events: bigint;
}

const SECOND_NS = 1_000_000_000n;

/** The second from which a log is asked for again: one before the latest, for lines that came late. */
export function sinceSeconds({ latestNs }: Pick<ContainerPosition, "latestNs">): bigint {
  const second = latestNs / SECOND_NS - 1n;
  return second > 0n ? second : 0n;
}

export function formatCursor({ container, events }: Position): string {
  const parts = container
    ? [
        container.podUid,
        container.restartCount,
        container.latestNs,
        container.lines,
        container.parts,
        container.installed ? "a" : "i",
        container.podCreatedMs,
      ]
    : ["-"];
  return `1.${events}.${parts.join(".")}`;
}

/** Cursors of before lack the last number. */
const CURSOR = /^1\.(\d+)\.(?:-|([\w-]+)\.(\d+)\.(\d+)\.(\d+)\.(\d+)\.([ai])(?:\.(\d+))?)$/;

/** Null for what is no cursor of ours: the log then begins at its beginning. */
export function parseCursor(cursor: string): Position | null {
  const match = CURSOR.exec(cursor);
  if (!match) return null;
  const [, events = "0", podUid, restartCount, latestNs = "0", lines, parts, installed, podCreatedMs = "0"] =
    match;
  const container =
    podUid === undefined
      ? null
      : {
          podUid,
          podCreatedMs: Number(podCreatedMs),
          restartCount: Number(restartCount),
          latestNs: BigInt(latestNs),
          lines: Number(lines),
          parts: Number(parts),
          installed: installed === "a",
        };
  return { container, events: BigInt(events) };
}

/** Follows a container's lines from a position: which have been given before, and where one then stands. */
export class LineCounter {
  readonly #start: Pick<ContainerPosition, "latestNs" | "lines" | "parts">;
  #skipped = 0;
  #latestNs: bigint;
  /** Lines seen so far by the second that they carry, for the two latest seconds. */
  #seconds = new Map<bigint, number>();
  #skipping: boolean;

  /** @param start null: from the log's beginning */
  constructor(start: Pick<ContainerPosition, "latestNs" | "lines" | "parts"> | null) {
    this.#start = start ?? { latestNs: 0n, lines: 0, parts: 0 };
    this.#latestNs = this.#start.latestNs;
    this.#skipping = start !== null;
  }

  /**
   * How many of the parts of `line` have been given before; null: all of it.
   *
   * A line later than the latest that was given is new whatever the count says: the lines before it have
   * been rotated away.
   */
  alreadyGiven(line: TimedLine): number | null {
    if (!this.#skipping) return 0;
    // The end of a line whose beginning was not asked for, from a newer kubelet: without a time, and not counted.
    if (line.atNs < sinceSeconds(this.#start) * SECOND_NS) return null;
    if (line.atNs <= this.#start.latestNs && this.#skipped < this.#start.lines) {
      this.#skipped++;
      this.#count(line);
      return null;
    }
    this.#skipping = false;
    return this.#skipped === this.#start.lines ? this.#start.parts : 0;
  }

  /** `line` has been given as a whole. */
  given(line: TimedLine): void {
    if (line.untilNs > this.#latestNs) this.#latestNs = line.untilNs;
    this.#count(line);
  }

  /** Where one stands now, with `parts` of the next line given. */
  position(parts: number): Pick<ContainerPosition, "latestNs" | "lines" | "parts"> {
    const since = sinceSeconds({ latestNs: this.#latestNs });
    let lines = 0;
    for (const [second, count] of this.#seconds) if (second >= since) lines += count;
    return { latestNs: this.#latestNs, lines, parts };
  }

  #count({ untilNs }: TimedLine): void {
    const second = untilNs / SECOND_NS;
    this.#seconds.set(second, (this.#seconds.get(second) ?? 0) + 1);
    if (this.#seconds.size <= 3) return;
    const since = sinceSeconds({ latestNs: this.#latestNs });
    for (const old of this.#seconds.keys()) if (old < since) this.#seconds.delete(old);
  }
}
