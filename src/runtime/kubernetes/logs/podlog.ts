import type { Connection } from "../api/connection.ts";
import type { ExecTarget } from "../api/exec.ts";
import { keepAlive, PING_EVERY_MS } from "../api/heartbeat.ts";
import { openSocket } from "../api/socket.ts";
import { LineSplitter } from "../api/streams.ts";

/** Above this many characters waiting to be taken the stream is paused. */
const HIGH_WATER_CHARS = 512 * 1024;
/** What a line takes beside its text. */
const LINE_OVERHEAD_CHARS = 64;
/** A close frame, by RFC 6455, section 7.4.1. Without one the connection was lost. */
const CLOSE_FRAME_CODES = [1000, 1005];
/** What is longer is cut, kubelet's time included. Positions count on this: it is the same at every reading. */
const LINE_LIMIT_CHARS = 256 * 1024;

/** One line as the container wrote it, with the time that kubelet noted. */
export interface StampedLine {
  /** Nanoseconds since the epoch. */
  atNs: bigint;
  text: string;
}

export interface PodLogLine extends StampedLine {
  /** The time of its last piece, as far as kubelet tells; see PieceJoiner. */
  untilNs: bigint;
  /** It goes on, for longer than is kept of a line. */
  isCut: boolean;
}

export interface PodLogOptions {
  /** The log of the container before the last restart. */
  previous?: boolean;
  /** Lines from this second on. */
  sinceSeconds?: bigint;
  /** Called when there is something to take, and at the end. */
  wake(): void;
  pingEveryMs?: number;
}

/** A container's log, followed until the container ends. */
export interface PodLog {
  /** The next line; undefined: none as yet. */
  take(): PodLogLine | undefined;
  /** Whether everything has been taken and nothing will follow. */
  ended(): boolean;
  /** It ended because the connection did, not the log: there may be more. */
  wasCut(): boolean;
  close(): void;
}

/** @throws KubeStatusError 400 while the container has not started, 404 when there is no such pod */
export async function openPodLog(
  connection: Connection,
  { namespace, pod, container }: ExecTarget,
  { previous = false, sinceSeconds, wake, pingEveryMs = PING_EVERY_MS }: PodLogOptions,
): Promise<PodLog> {
  const socket = await openSocket(
    connection,
    `/api/v1/namespaces/${namespace}/pods/${pod}/log`,
    [
      ["container", container],
      ["follow", String(!previous)],
      ["previous", String(previous)],
      ["timestamps", "true"],
      ...(sinceSeconds === undefined
        ? []
        : [["sinceTime", new Date(Number(sinceSeconds) * 1000).toISOString()] satisfies [string, string]]),
    ],
    ["binary.k8s.io"],
  );
  const joiner = new PieceJoiner();
  const decoder = new TextDecoder();
  const splitter = new LineSplitter(LINE_LIMIT_CHARS);
  const lines: PodLogLine[] = [];
  // The line that has only begun does not count: nobody can take it, and it has a limit of its own.
  let waitingChars = 0;
  let paused = false;
  let closeCode: number | null = null;

  keepAlive(socket, { everyMs: pingEveryMs, mayBeSilent: () => paused });
  socket.onmessage = ({ data }) => {
    for (const { bytes, untilNs } of joiner.push(new Uint8Array(data))) {
      for (const { text, isCut } of splitter.push(decoder.decode(bytes, { stream: true }))) {
        if (text === "") continue;
        const { atNs, text: said } = stamped(text);
        const line = { atNs, untilNs: untilNs || atNs, text: said, isCut };
        lines.push(line);
        waitingChars += charsOf(line);
      }
    }
    if (waitingChars > HIGH_WATER_CHARS && !paused) {
      paused = true;
      socket.pause();
    }
    if (lines.length > 0) wake();
  };
  socket.onclose = ({ code }) => {
    // Only a cut connection leaves half a line; taken up again, it comes whole.
    closeCode = code;
    wake();
  };
  socket.resume();
  return {
    take() {
      const line = lines.shift();
      if (line) waitingChars -= charsOf(line);
      if (paused && waitingChars < HIGH_WATER_CHARS / 2) {
        paused = false;
        socket.resume();
      }
      return line;
    },
    ended: () => closeCode !== null && lines.length === 0,
    wasCut: () => closeCode !== null && !CLOSE_FRAME_CODES.includes(closeCode),
    close() {
      socket.onmessage = socket.onclose = null;
      if (paused) socket.resume();
      socket.close();
    },
  };
}

function charsOf({ text }: PodLogLine): number {
  return text.length + LINE_OVERHEAD_CHARS;
}

const STAMP = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d) /;
/** The longest that STAMP matches. */
const STAMP_LIMIT = "2026-01-01T00:00:00.000000000+00:00 ".length;

/** Splits kubelet's time from a line. A line without one (kubelet's own complaints) counts as of the epoch. */
export function stamped(line: string): StampedLine {
  const match = STAMP.exec(line);
  const [whole = "", seconds = "", fraction = "", zone = ""] = match ?? [];
  const ms = Date.parse(seconds + zone);
  if (!match || Number.isNaN(ms)) return { atNs: 0n, text: line };
  return {
    atNs: BigInt(ms) * 1_000_000n + BigInt(fraction.padEnd(9, "0") || 0),
    text: line.slice(whole.length),
  };
}

/** Of so many bytes are the pieces in which the node keeps a line that is longer. */
const PIECE_BYTES = 16 * 1024;
const NEW_LINE = 0x0a;
const NOTHING = new Uint8Array();

/** What is to be joined to what came before; at most one line ends in it, and that with it. */
export interface JoinedBytes {
  bytes: Uint8Array;
  /** The latest of the times that were taken out of the line. 0: there was none. */
  untilNs: bigint;
}

/**
 * Takes out the times that older kubelets (1.20) put before every piece of a line, where newer ones have one
 * before the first alone. It works on bytes, as the pieces are: a time may stand inside a character.
 */
export class PieceJoiner {
  /** What came last and may be the beginning of a time. */
  #held: Uint8Array = NOTHING;
  #isBegun = false;
  /** Bytes up to where the next time may stand: none after a piece without one, until the line's end. */
  #left = 0;
  #untilNs = 0n;

  /** The bytes without the times that do not belong there, as far as can be told. */
  push(bytes: Uint8Array): JoinedBytes[] {
    const all = this.#held.length > 0 ? Buffer.concat([this.#held, bytes]) : bytes;
    const joined: JoinedBytes[] = [];
    let from = 0;
    const take = (end: number) => {
      if (end > from) joined.push({ bytes: all.subarray(from, end), untilNs: this.#untilNs });
      from = end;
    };
    let at = 0;
    while (at < all.length) {
      if (this.#left === 0) {
        const stamp = stampAt(all, at);
        if (!stamp) break;
        if (this.#isBegun && stamp.length > 0) {
          take(at);
          from += stamp.length;
          this.#untilNs = stamp.atNs;
        }
        at += stamp.length;
        this.#isBegun = true;
        this.#left = stamp.length > 0 ? PIECE_BYTES : Number.POSITIVE_INFINITY;
      }
      const end = all.indexOf(NEW_LINE, at);
      const length = (end < 0 ? all.length : end) - at;
      if (end < 0 || length > this.#left) {
        const step = Math.min(length, this.#left);
        this.#left -= step;
        at += step;
      } else {
        at = end + 1;
        take(at);
        this.#isBegun = false;
        this.#left = 0;
        this.#untilNs = 0n;
      }
    }
    take(at);
    this.#held = all.slice(at);
    return joined;
  }
}

/** The time that begins at `at`, of length 0 where there is none; null: too little has come to tell. */
function stampAt(bytes: Uint8Array, at: number): { length: number; atNs: bigint } | null {
  const line = String.fromCharCode(...bytes.subarray(at, at + STAMP_LIMIT));
  const { atNs, text } = stamped(line);
  const length = line.length - text.length;
  return length === 0 && line.length < STAMP_LIMIT && !/[\n ]/.test(line) ? null : { length, atNs };
}
