import { createInterface } from "node:readline/promises";
import { Writable } from "node:stream";

/*
 * `devpocket connect`: the shortest way to a shell in an environment, for a newcomer and for anyone with
 * nothing but the binary. An ordinary client of the public API.
 */

export interface ConnectOptions {
  url: string;
  user: string | undefined;
  /** Name of the environment; made from `template` when there is none. */
  name: string;
  template: string;
}

/** What was refused or could not be reached: one line for the person at the terminal. */
export class ConnectError extends Error {
  override readonly name = "ConnectError";
}

interface Environment {
  id: string;
  name: string;
  status: string;
  status_message: string | null;
}

/** Ctrl-] leaves, as in telnet. */
const ESCAPE = 0x1d;
const RECONNECT_MS = 1000;

/** Signs in, brings the environment up and joins this terminal to its shell. Returns the shell's exit code. */
export async function connect(options: ConnectOptions): Promise<number> {
  const api = await signIn(options);
  const environment = await bringUp(api, options);
  process.stderr.write(`Connected to ${environment.name}. Ctrl-] leaves; the shell goes on for a while.\r\n`);
  return joinTerminal(api, environment.id);
}

type Call = (method: string, path: string, body?: unknown) => Promise<unknown>;

interface Api {
  url: string;
  token: string;
  call: Call;
}

async function signIn({ url, user }: ConnectOptions): Promise<Api> {
  const name = user ?? (await ask("Username: "));
  const password = await ask("Password: ", { hidden: true });
  const call = caller(url, "");
  const answer = await call("POST", "/api/v1/auth/login", { username_or_email: name, password });
  const token = field(answer, "access_token");
  return { url, token, call: caller(url, token) };
}

async function bringUp({ call }: Api, { name, template }: ConnectOptions): Promise<Environment> {
  const list = await call("GET", "/api/v1/environments?limit=200");
  const found = Array.isArray(list) ? list.map(asEnvironment).find((one) => one.name === name) : undefined;
  if (!found) {
    process.stderr.write(`Making the environment "${name}" from the template "${template}"\n`);
    return asEnvironment(await call("POST", "/api/v1/environments", { name, template }));
  }
  if (found.status === "stopped") await call("POST", `/api/v1/environments/${found.id}/start`);
  if (found.status === "error") await call("POST", `/api/v1/environments/${found.id}/recover`);
  return found;
}

/** Resumes at the very next byte when the connection drops. */
async function joinTerminal(api: Api, environmentId: string): Promise<number> {
  const input = process.stdin;
  const raw = input.isTTY;
  if (raw) input.setRawMode(true);
  const at: { session: string | undefined; offset: number } = { session: undefined, offset: 0 };
  try {
    for (;;) {
      const end = await oneConnection(api, environmentId, at);
      if (end.kind === "ended") return end.code;
      process.stderr.write("\r\n[connection lost, trying again]\r\n");
      await Bun.sleep(RECONNECT_MS);
    }
  } finally {
    if (raw) input.setRawMode(false);
    input.pause();
  }
}

type End = { kind: "ended"; code: number } | { kind: "lost" };

function oneConnection(
  api: Api,
  environmentId: string,
  at: { session: string | undefined; offset: number },
): Promise<End> {
  const query = at.session ? `?session_id=${at.session}&offset=${at.offset}` : "";
  const address = `${api.url.replace(/^http/, "ws")}/api/v1/ws/terminal/${environmentId}${query}`;
  const socket = new WebSocket(address, ["devpocket.v1.binary", `bearer.${api.token}`]);
  socket.binaryType = "arraybuffer";
  return new Promise((resolve) => {
    let exitCode: number | undefined;
    let refusal: string | undefined;
    const send = (message: unknown) =>
      socket.readyState === WebSocket.OPEN && socket.send(JSON.stringify(message));
    const resize = () =>
      send({ type: "resize", cols: process.stdout.columns ?? 80, rows: process.stdout.rows ?? 24 });
    const type = (bytes: Buffer) => {
      if (bytes.includes(ESCAPE)) finish({ kind: "ended", code: 0 });
      else if (socket.readyState === WebSocket.OPEN) socket.send(bytes);
    };

    function finish(end: End): void {
      process.stdin.off("data", type);
      process.stdout.off("resize", resize);
      socket.onclose = null;
      socket.close();
      resolve(end);
    }

    function control(text: string): void {
      const message: unknown = JSON.parse(text);
      switch (field(message, "type", "")) {
        case "welcome": {
          const session = field(message, "session_id", "");
          if (session === "") return;
          at.session = session;
          at.offset = Number(field(message, "offset", "0"));
          resize();
          return;
        }
        case "gap":
          at.offset += Number(field(message, "bytes", "0"));
          return;
        case "exit":
          exitCode = Number(field(message, "code", "0"));
          return;
        case "status_update":
        case "info":
          process.stderr.write(`${field(message, "message", "") || field(message, "status", "")}\r\n`);
          return;
        case "error":
          refusal = field(message, "message", "");
          process.stderr.write(`${refusal}\r\n`);
      }
    }

    socket.onopen = () => {
      process.stdin.on("data", type);
      process.stdout.on("resize", resize);
      process.stdin.resume();
    };
    socket.onmessage = ({ data }) => {
      if (typeof data === "string") return control(data);
      const bytes = new Uint8Array(data);
      at.offset += bytes.length;
      process.stdout.write(bytes, () => send({ type: "ack", offset: at.offset }));
    };
    socket.onclose = ({ code }) => {
      if (exitCode !== undefined || code === 1000) finish({ kind: "ended", code: exitCode ?? 0 });
      else if (code === 1008) finish({ kind: "ended", code: 1 });
      else finish({ kind: "lost" });
    };
  });
}

function caller(url: string, token: string): Call {
  return async (method, path, body) => {
    const response = await fetch(url + path, {
      method,
      headers: {
        ...(token ? { Authorization: `Bearer ${token}` } : {}),
        ...(body === undefined ? {} : { "Content-Type": "application/json" }),
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    }).catch(() => {
      throw new ConnectError(`no DevPocket answers at ${url}`);
    });
    const answer: unknown = await response.json().catch(() => ({}));
    if (!response.ok)
      throw new ConnectError(field(answer, "detail", `${method} ${path}: ${response.status}`));
    return answer;
  };
}

/** A field of an answer as text. */
function field(answer: unknown, name: string, fallback?: string): string {
  const value =
    typeof answer === "object" && answer !== null
      ? Object.entries(answer).find(([key]) => key === name)
      : undefined;
  if (value?.[1] !== undefined && value[1] !== null) return String(value[1]);
  if (fallback !== undefined) return fallback;
  throw new ConnectError(`the server's answer has no ${name}`);
}

function asEnvironment(answer: unknown): Environment {
  return {
    id: field(answer, "id"),
    name: field(answer, "name"),
    status: field(answer, "status"),
    status_message: field(answer, "status_message", "") || null,
  };
}

/** Asks at the terminal; a hidden answer is not echoed. Reads a line where standard input is no terminal. */
async function ask(question: string, { hidden = false } = {}): Promise<string> {
  const muted = new Writable({ write: (_chunk, _encoding, done) => done() });
  process.stderr.write(question);
  const prompt = createInterface({
    input: process.stdin,
    output: hidden ? muted : process.stderr,
    terminal: process.stdin.isTTY,
  });
  try {
    return await prompt.question("");
  } finally {
    prompt.close();
    if (hidden) process.stderr.write("\n");
  }
}
