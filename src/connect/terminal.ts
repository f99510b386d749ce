import type { TerminalSize } from "../runtime/runtime.ts";
import { TERMINAL_LIMITS } from "../terminal/limits.ts";
import { type Api, ConnectError, field } from "./api.ts";
import { KeptInput } from "./input.ts";

/** Ctrl-] leaves, as in telnet. */
const ESCAPE = 0x1d;
/** Ctrl-D, when what is piped in has ended: again and again, since a shell that is just beginning overhears it. */
const END_OF_INPUT = Uint8Array.of(0x04);
const END_EVERY_MS = 1000;
const RECONNECT_MS = 1000;
/** A connection over which nothing has come for so long, though it was asked for an answer, is dead. */
const SILENCE_MS = 40_000;
const PING_EVERY_MS = 15_000;
/** So much that is typed and not taken is enough: no more is read until the server has taken some. */
const MAX_KEPT_BYTES = 1024 * 1024;
/** What a program may have left on that was still running: alternate screen, hidden cursor, paste and mouse modes. */
const RESET = "\x1b[?1047l\x1b[?25h\x1b[?2004l\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b>\x1b[0m\r\n";

/** Where in which session the next byte belongs. */
interface Place {
  /** Names this client over its connections. */
  clientId: string;
  session: string | undefined;
  /** Undefined: from the beginning of what the server still has. */
  offset: number | undefined;
}

interface Joining {
  /** To be taken up; undefined: a new one. */
  session?: string | undefined;
  /** What was typed before. */
  typed?: Uint8Array;
}

type End = { kind: "left" } | { kind: "ended"; code: number } | { kind: "lost" };

/**
 * Joins this terminal to a shell of the environment and resumes at the very next byte when the connection
 * drops.
 *
 * @returns the shell's exit code; 0 when the person has left it
 */
export async function joinTerminal(
  api: Api,
  environmentId: string,
  { session, typed = new Uint8Array() }: Joining = {},
): Promise<number> {
  const { stdin, stdout } = process;
  const raw = stdin.isTTY;
  if (raw) {
    stdin.setRawMode(true);
    showBytesAsTheyAre();
  }
  const line = new Line(typed);
  // Whoever has seen what is printed has gone, such as the `head` that it is piped into.
  stdout.once("error", line.leave);
  const place: Place = {
    clientId: crypto.randomUUID(),
    session,
    offset: undefined,
  };
  try {
    for (let wasLost = false; ; wasLost = true) {
      const end = await oneConnection(api, environmentId, place, line);
      if (end.kind === "ended") return end.code;
      if (end.kind === "lost" && !wasLost) say("\r\n[connection lost; trying again, Ctrl-] leaves]");
      if (end.kind === "left" || (await line.leftWithin(RECONNECT_MS))) {
        if (stdout.isTTY) stdout.write(RESET);
        return 0;
      }
    }
  } finally {
    stdout.off("error", line.leave);
    line.close();
    if (raw) stdin.setRawMode(false);
  }
}

/** Raw mode still shows each line feed as a line end: a program that moves down by one would be drawn wrongly. */
function showBytesAsTheyAre(): void {
  try {
    Bun.spawnSync(["stty", "-opost"], { stdin: "inherit" });
  } catch {
    // Without stty most programs are drawn rightly all the same.
  }
}

/** What is typed: sent over the connection there is now, and kept until the server has it. */
class Line {
  /** Resolves when the person leaves. */
  readonly left: Promise<void>;
  readonly leave: () => void;
  readonly #kept = new KeptInput();
  #send: ((bytes: Uint8Array) => void) | undefined;
  readonly #read: (bytes: Uint8Array) => void;
  readonly #end = () => {
    this.#type(END_OF_INPUT);
    this.#endTimer = setInterval(() => this.#type(END_OF_INPUT), END_EVERY_MS);
  };
  #endTimer: Timer | undefined;

  constructor(typed: Uint8Array) {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.left = promise;
    this.leave = resolve;
    this.#read = (bytes) => {
      const end = bytes.indexOf(ESCAPE);
      if (end !== 0) this.#type(end < 0 ? bytes : bytes.subarray(0, end));
      if (end >= 0) this.leave();
    };
    this.#read(typed);
    if (process.stdin.readableEnded) this.#end();
    process.stdin.on("data", this.#read).once("end", this.#end);
    process.stdin.resume();
  }

  /** `shell` takes input by `send`: what it has taken ends at `offset`, all that is kept follows. */
  connect(send: (bytes: Uint8Array) => void, shell: string, offset: number): void {
    this.#kept.goTo(shell, offset);
    this.#readOn();
    this.#send = send;
    for (const bytes of this.#kept) send(bytes);
  }

  /** The same connection leads to another shell. */
  goOn(shell: string, offset: number): void {
    this.#kept.goOn(shell, offset);
    this.#readOn();
  }

  disconnect(): void {
    this.#send = undefined;
  }

  /** The server has everything before `offset`. */
  taken(offset: number): void {
    this.#kept.take(offset);
    this.#readOn();
  }

  #readOn(): void {
    if (this.#kept.bytes < MAX_KEPT_BYTES) process.stdin.resume();
  }

  #type(bytes: Uint8Array): void {
    this.#kept.push(bytes);
    this.#send?.(bytes);
    if (this.#kept.bytes >= MAX_KEPT_BYTES) process.stdin.pause();
  }

  async leftWithin(ms: number): Promise<boolean> {
    return Promise.race([this.left.then(() => true), Bun.sleep(ms).then(() => false)]);
  }

  close(): void {
    clearInterval(this.#endTimer);
    process.stdin.off("data", this.#read).off("end", this.#end);
    process.stdin.pause();
  }
}

/** @throws ConnectError when the account has been signed out */
async function oneConnection(api: Api, environmentId: string, place: Place, line: Line): Promise<End> {
  const token = await api.token().catch((error: unknown) => {
    if (error instanceof ConnectError && error.status !== 401) return undefined;
    throw error;
  });
  if (token === undefined) return { kind: "lost" };
  const { cols, rows } = screenSize();
  const query = new URLSearchParams({
    client_id: place.clientId,
    cols: String(cols),
    rows: String(rows),
    ...(place.session === undefined ? {} : { session_id: place.session }),
    ...(place.offset === undefined ? {} : { offset: String(place.offset) }),
  });
  const address = `${api.url.replace(/^http/, "ws")}/api/v1/ws/terminal/${environmentId}?${query}`;
  const socket = new WebSocket(address, ["devpocket.v1.binary", `bearer.${token}`]);
  socket.binaryType = "arraybuffer";
  return new Promise((resolve) => {
    let exitCode: number | undefined;
    let isAttached = false;
    let heardAt = performance.now();
    const send = (message: unknown) => {
      if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(message));
    };
    const resize = () => send({ type: "resize", ...screenSize() });

    const keepalive = setInterval(() => {
      if (performance.now() - heardAt > SILENCE_MS) {
        finish({ kind: "lost" });
        socket.terminate();
      } else send({ type: "ping" });
    }, PING_EVERY_MS);

    function finish(end: End): void {
      clearInterval(keepalive);
      line.disconnect();
      process.stdout.off("resize", resize);
      socket.onclose = null;
      socket.close();
      resolve(end);
    }

    function control(message: unknown): void {
      switch (field(message, "type", "")) {
        case "welcome": {
          const session = field(message, "session_id", "");
          if (session === "") return;
          place.session = session;
          place.offset = Number(field(message, "offset", "0"));
          process.stdout.write(field(message, "restore", ""));
          resize();
          const inputOffset = Number(field(message, "input_offset", "0"));
          if (isAttached) line.goOn(session, inputOffset);
          else
            line.connect(
              (bytes) => socket.readyState === WebSocket.OPEN && socket.send(bytes),
              session,
              inputOffset,
            );
          isAttached = true;
          return;
        }
        case "input_ack":
          line.taken(Number(field(message, "offset", "0")));
          return;
        case "gap":
          place.offset = Number(field(message, "offset", "0"));
          process.stdout.write(field(message, "restore", ""));
          return;
        case "exit":
          exitCode = Number(field(message, "code", "0"));
          return;
        case "status_update":
        case "info":
          say(field(message, "message", "") || field(message, "status", ""));
          return;
        case "error":
          say(field(message, "message", ""));
      }
    }

    void line.left.then(() => finish({ kind: "left" }));
    socket.onopen = () => process.stdout.on("resize", resize);
    socket.onmessage = ({ data }) => {
      heardAt = performance.now();
      if (typeof data === "string") return control(JSON.parse(data));
      const bytes = new Uint8Array(data);
      const offset = (place.offset ?? 0) + bytes.length;
      place.offset = offset;
      process.stdout.write(bytes, () => send({ type: "ack", offset }));
    };
    socket.onclose = ({ code }) => {
      if (exitCode !== undefined || code === 1000) finish({ kind: "ended", code: exitCode ?? 0 });
      else if (code === 1008) finish({ kind: "ended", code: 1 });
      else finish({ kind: "lost" });
    };
  });
}

/** 80 × 24 where the terminal does not say. */
function screenSize(): TerminalSize {
  const { columns, rows } = process.stdout;
  return {
    cols: Math.min(columns || 80, TERMINAL_LIMITS.maxCols),
    rows: Math.min(rows || 24, TERMINAL_LIMITS.maxRows),
  };
}

/** The terminal may be raw: a line begins where it is told to. */
function say(text: string): void {
  process.stderr.write(`${text}\r\n`);
}
