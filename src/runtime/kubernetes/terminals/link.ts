import type { InputPlace, TerminalSize } from "../../runtime.ts";
import type { Connection } from "../api/connection.ts";
import { isStatus } from "../api/errors.ts";
import { type ExecTarget, openExec } from "../api/exec.ts";
import { FrameReader, frameOf, numbersOf } from "./frames.ts";

const HEAD_TIMEOUT_MS = 20_000;
/** A command's exit codes from here on are those of signals. */
const FIRST_SIGNAL_CODE = 129;
/** What a holder can keep that does not say so: one that an earlier version has begun. */
const EARLIER_WINDOW_BYTES = 512 * 1024;

/** What the holder says first. */
export interface HeldHead {
  /** Offset of the oldest byte it has, of the first that follows on this connection, and of the next it reads. */
  start: number;
  from: number;
  end: number;
  size: TerminalSize;
  createdAtMs: number;
  /** How much of its output may be on the way. */
  windowBytes: number;
  /** What sets a terminal's modes and title as the output before `start` has. */
  modes: string;
  input: InputPlace[];
}

export interface Link {
  send(type: string, text?: string): void;
  sendFrame(frame: Uint8Array): void;
  close(): void;
}

export interface LinkHandlers {
  onOutput(bytes: Uint8Array): void;
  onFrame(type: string, text: string): void;
  /** The connection has ended, after the head. */
  onEnd(): void;
}

/**
 * - `gone`: no such session, or no such container
 * - `refused`: the container has nothing that could hold it, or be a way to a holder
 * - `lost`: the connection ended before anything was known
 */
export type Dialled = { head: HeldHead; link: Link } | "gone" | "refused" | "lost";

/** Connects to a holder by a command that relays to it. @throws KubeStatusError, RuntimeUnreachable */
export async function dial(
  connection: Connection,
  target: ExecTarget,
  command: string[],
  handlers: LinkHandlers,
): Promise<Dialled> {
  const { promise, resolve } = Promise.withResolvers<HeldHead | "gone" | "refused" | "lost">();
  let begun = false;
  const frames = new FrameReader({
    onOutput: handlers.onOutput,
    onFrame(type, text) {
      if (begun) handlers.onFrame(type, text);
      else if (type !== "h") resolve("gone");
      else {
        begun = true;
        resolve(parseHead(text));
      }
    },
  });
  let stream: Awaited<ReturnType<typeof openExec>>;
  try {
    stream = await openExec(
      connection,
      target,
      command,
      { tty: false, stdin: true },
      {
        onOutput(bytes, from) {
          if (from === "stdout" && !frames.push(bytes)) stream.close();
        },
        onEnd(code) {
          // Killed: the container has too little memory now, which says nothing of what it holds.
          resolve(code === null || code >= FIRST_SIGNAL_CODE ? "lost" : "refused");
          if (begun) handlers.onEnd();
        },
      },
    );
  } catch (error) {
    if (isStatus(error, 404)) return "gone";
    throw error;
  }
  const timer = setTimeout(() => {
    resolve("lost");
    stream.close();
  }, HEAD_TIMEOUT_MS);
  const head = await promise;
  clearTimeout(timer);
  if (typeof head === "string") {
    stream.close();
    return head;
  }
  const link = {
    send: (type: string, text = "") => stream.write(frameOf(type, text)),
    sendFrame: (frame: Uint8Array) => stream.write(frame),
    close: () => stream.close(),
  };
  return { head, link };
}

function parseHead(text: string): HeldHead {
  const [first = "", ...places] = text.trimEnd().split("\n");
  const [start = 0, from = 0, end = 0, cols = 80, rows = 24, since = 0, windowBytes = EARLIER_WINDOW_BYTES] =
    numbersOf(first);
  const modes = Buffer.from(first.split(" ")[7] ?? "", "hex").toString("latin1");
  const input = places.map(parsePlace);
  return { start, from, end, size: { cols, rows }, createdAtMs: since * 1000, windowBytes, modes, input };
}

export function parsePlace(text: string): InputPlace {
  const [client = "", ...numbers] = text.split(" ");
  const [bytes = 0, seq = 0, part = 0] = numbers.map(Number);
  return { client, bytes, seq, part };
}

export function formatPlace({ client, bytes, seq, part }: InputPlace): string {
  return `${client} ${bytes} ${seq} ${part}`;
}
