import type { TerminalSize } from "../../runtime.ts";
import { RuntimeUnreachable } from "../../runtime.ts";
import type { Connection } from "./connection.ts";
import { keepAlive, PING_EVERY_MS } from "./heartbeat.ts";
import { openSocket } from "./socket.ts";

/*
 * The remote command protocol (k8s.io/apimachinery/pkg/util/remotecommand): every binary frame begins with
 * the number of its channel.
 */
const PROTOCOLS = ["v5.channel.k8s.io", "v4.channel.k8s.io"];
const STDIN = 0;
const STDOUT = 1;
const STDERR = 2;
const STATUS = 3;
const RESIZE = 4;

/** More of one frame makes the API server's and kubelet's buffers grow for nothing. */
const FRAME_LIMIT_BYTES = 32 * 1024;

/**
 * After so much input a ping follows. Frames are handled in their order, so its pong says that the input
 * before it has gone on into the container; what sockets and proxies between hold tells nothing of that.
 */
const ACK_EVERY_BYTES = 32 * 1024;

/**
 * A container takes so much input even when nothing reads it. More may wait on the way for as long as it
 * likes, and a ping behind it.
 */
const INPUT_LEAST_BYTES = 4096;

export interface ExecTarget {
  namespace: string;
  pod: string;
  container: string;
}

export interface ExecHandlers {
  /** The bytes are valid during the call only. */
  onOutput(bytes: Uint8Array, stream: "stdout" | "stderr"): void;
  /** Called once: the command's exit code; null when the connection ended before it was told. */
  onEnd(code: number | null): void;
  /** Called when the far side has taken something. */
  onTaken?(): void;
}

export interface ExecStream {
  write(bytes: Uint8Array): void;
  /** Bytes that were written and that the far side has not said to have taken, in steps of ACK_EVERY_BYTES. */
  pendingBytes(): number;
  resize(size: TerminalSize): void;
  pause(): void;
  resume(): void;
  close(): void;
}

/**
 * Runs `command` in a container. Output flows from the start; see `pause`. A far side that falls silent has
 * ended the connection.
 */
export async function openExec(
  connection: Connection,
  target: ExecTarget,
  command: string[],
  { tty, stdin, pingEveryMs = PING_EVERY_MS }: { tty: boolean; stdin: boolean; pingEveryMs?: number },
  handlers: ExecHandlers,
): Promise<ExecStream> {
  const path = `/api/v1/namespaces/${target.namespace}/pods/${target.pod}/exec`;
  const socket = await openSocket(
    connection,
    path,
    [
      ...command.map((argument): [string, string] => ["command", argument]),
      ["container", target.container],
      ["stdin", String(stdin)],
      ["stdout", "true"],
      ["stderr", String(!tty)],
      ["tty", String(tty)],
    ],
    PROTOCOLS,
  );
  let ended = false;
  const end = (code: number | null) => {
    if (ended) return;
    ended = true;
    handlers.onEnd(code);
    socket.close();
  };
  socket.onmessage = ({ data }) => {
    if (ended || !(data instanceof ArrayBuffer)) return;
    const frame = new Uint8Array(data);
    const channel = frame[0];
    if (channel === STATUS) end(exitCodeOf(new TextDecoder().decode(frame.subarray(1))));
    else if (frame.length > 1 && channel === STDOUT) handlers.onOutput(frame.subarray(1), "stdout");
    else if (frame.length > 1 && channel === STDERR) handlers.onOutput(frame.subarray(1), "stderr");
  };
  socket.onclose = () => end(null);
  socket.resume();

  let writtenBytes = 0;
  let takenBytes = 0;
  let pingedBytes = 0;
  let paused = false;
  keepAlive(socket, {
    everyMs: pingEveryMs,
    payload: () => String(writtenBytes),
    mayBeSilent: () => paused || writtenBytes - takenBytes > INPUT_LEAST_BYTES,
  });
  socket.addEventListener("pong", ({ data }) => {
    const bytes = data instanceof ArrayBuffer ? Number(new TextDecoder().decode(data)) : Number.NaN;
    if (!(bytes > takenBytes)) return;
    takenBytes = bytes;
    handlers.onTaken?.();
  });

  const isOpen = () => !ended && socket.readyState === WebSocket.OPEN;
  return {
    write(bytes) {
      for (let at = 0; isOpen() && at < bytes.length; at += FRAME_LIMIT_BYTES) {
        const part = bytes.subarray(at, at + FRAME_LIMIT_BYTES);
        socket.send(frameOf(STDIN, part));
        writtenBytes += part.length;
        if (writtenBytes - pingedBytes < ACK_EVERY_BYTES) continue;
        pingedBytes = writtenBytes;
        socket.ping(String(writtenBytes));
      }
    },
    pendingBytes: () => (isOpen() ? writtenBytes - takenBytes : 0),
    resize({ cols, rows }) {
      const size = new TextEncoder().encode(JSON.stringify({ Width: cols, Height: rows }));
      if (isOpen()) socket.send(frameOf(RESIZE, size));
    },
    pause() {
      paused = true;
      if (isOpen()) socket.pause();
    },
    resume() {
      paused = false;
      if (isOpen()) socket.resume();
    },
    close() {
      // A paused socket would never learn of its own end.
      paused = false;
      if (isOpen()) socket.resume();
      socket.close();
    },
  };
}

function frameOf(channel: number, bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  const frame = new Uint8Array(bytes.length + 1);
  frame[0] = channel;
  frame.set(bytes, 1);
  return frame;
}

interface ExecStatus {
  status?: string;
  details?: { causes?: { reason?: string; message?: string }[] };
}

/** Null: the command was not run to its end, for example because there is no such program. */
export function exitCodeOf(statusJson: string): number | null {
  let status: ExecStatus;
  try {
    status = JSON.parse(statusJson);
  } catch {
    return null;
  }
  if (status.status === "Success") return 0;
  const cause = status.details?.causes?.find(({ reason }) => reason === "ExitCode");
  const code = Number.parseInt(cause?.message ?? "", 10);
  return Number.isNaN(code) ? null : code;
}

export interface CommandResult {
  exitCode: number;
  stdout: string;
}

/**
 * Runs a short command and collects what it prints on standard output, at most `limitBytes` of it.
 *
 * @throws KubeStatusError when the container is not there or does not run, RuntimeUnreachable when the
 *   connection ends first or `timeoutMs` pass
 */
export async function runCommand(
  connection: Connection,
  target: ExecTarget,
  command: string[],
  { timeoutMs = 15_000, limitBytes = 64 * 1024 }: { timeoutMs?: number; limitBytes?: number } = {},
): Promise<CommandResult> {
  const chunks: Uint8Array[] = [];
  let length = 0;
  const { promise, resolve } = Promise.withResolvers<number | null>();
  const stream = await openExec(
    connection,
    target,
    command,
    { tty: false, stdin: false },
    {
      onOutput(bytes, from) {
        if (from !== "stdout" || length >= limitBytes) return;
        chunks.push(bytes.slice(0, limitBytes - length));
        length += bytes.length;
      },
      onEnd: resolve,
    },
  );
  const timer = setTimeout(() => {
    // A peer that says nothing would not answer this either.
    stream.close();
    resolve(null);
  }, timeoutMs);
  const exitCode = await promise;
  clearTimeout(timer);
  if (exitCode === null) throw new RuntimeUnreachable("A command in the environment did not end");
  return { exitCode, stdout: Buffer.concat(chunks).toString() };
}
