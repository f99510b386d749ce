import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const MAIN = join(import.meta.dir, "../src/main.ts");
/** The source tree as a command. */
export const SOURCE = ["bun", MAIN];
/** The same, with a module that is evaluated before it. */
export const preloading = (path: string) => ["bun", "--preload", path, MAIN];
/** The binary that this run of the tests has built, if it has. */
export const BINARY = Bun.env.DEVPOCKET_TEST_BINARY;
/** What is tested as a process: the binary, which needs half of the processor time to start. */
export const DEVPOCKET = BINARY === undefined ? SOURCE : [BINARY];

/** The same, for which `limitFiles` stands for a full disk: without the trap that would be a signal's end. */
export const FILLABLE = ["sh", "-c", 'trap "" XFSZ; exec "$@"', "sh", ...DEVPOCKET];

/** No file of the process may grow beyond `bytes`, or "unlimited". */
export function limitFiles(pid: number, bytes: string): void {
  Bun.spawnSync(["prlimit", "--pid", String(pid), `--fsize=${bytes}:`]);
}

/** What a server is started with: a compiled binary, or the source tree. */
export interface ServerOptions {
  /** Defaults to `DEVPOCKET`. */
  command?: string[];
  dataDir?: string;
  environment?: Record<string, string>;
}

/** A real server process on a free port, with a data folder of its own. */
export class TestServer {
  readonly #process: Bun.Subprocess<"ignore", "pipe", "pipe">;
  readonly #ownsDataDir: boolean;
  readonly url: string;
  readonly dataDir: string;
  /** Everything that it has written, to standard output and standard error. */
  readonly output: Output;

  private constructor(
    process: Bun.Subprocess<"ignore", "pipe", "pipe">,
    output: Output,
    at: { url: string; dataDir: string; ownsDataDir: boolean },
  ) {
    this.#process = process;
    this.#ownsDataDir = at.ownsDataDir;
    this.output = output;
    this.url = at.url;
    this.dataDir = at.dataDir;
  }

  static readonly adminPassword = "correct horse battery";

  /** @throws Error with all of its output when it does not come to listen */
  static async start({ command, dataDir, environment = {} }: ServerOptions = {}): Promise<TestServer> {
    const folder = dataDir ?? temporaryFolder();
    const process = Bun.spawn(command ?? DEVPOCKET, {
      cwd: folder,
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
      env: {
        PATH: Bun.env.PATH ?? "",
        HOME: Bun.env.HOME ?? "",
        PORT: "0",
        DATA_DIR: folder,
        ADMIN_EMAIL: "admin@example.org",
        ADMIN_PASSWORD: TestServer.adminPassword,
        RATE_LIMIT_PER_MINUTE: "0",
        AUTH_RATE_LIMIT_PER_MINUTE: "0",
        ...environment,
      },
    });
    const output = new Output(process.stdout, process.stderr);
    const listening = await Promise.race([
      output.line(/listens on (https?:\/\/\S+)/),
      process.exited.then(() => undefined),
    ]);
    const url = listening?.[1];
    if (!url) throw new Error(`the server did not start:\n${output.text}`);
    return new TestServer(process, output, { url, dataDir: folder, ownsDataDir: dataDir === undefined });
  }

  get pid(): number {
    return this.#process.pid;
  }

  /** Ends it in order and gives the exit code; removes the data folder unless it was given one. */
  async stop(): Promise<number> {
    this.#process.kill("SIGTERM");
    const code = await this.#process.exited;
    if (this.#ownsDataDir) rmSync(this.dataDir, { recursive: true, force: true });
    return code;
  }

  /** Ends it at once, as a crash would. */
  async kill(): Promise<void> {
    this.#process.kill("SIGKILL");
    await this.#process.exited;
  }

  async signedIn(name = "admin", password: string = TestServer.adminPassword): Promise<TestClient> {
    const client = new TestClient(this.url);
    const { access_token, refresh_token } = await client.post("/api/v1/auth/login", {
      username_or_email: name,
      password,
    });
    return new TestClient(this.url, String(access_token), String(refresh_token));
  }

  /** Registers someone and signs them in. */
  async newUser(username: string): Promise<TestClient> {
    const password = `${username}'s long password`;
    const client = new TestClient(this.url);
    await client.post("/api/v1/auth/register", { username, email: `${username}@example.org`, password }, 201);
    return this.signedIn(username, password);
  }
}

export function temporaryFolder(): string {
  return mkdtempSync(join(tmpdir(), "devpocket-test-"));
}

type Json = Record<string, unknown>;

/** Speaks like a client of the API; every method checks the status it expects and fails with the body. */
export class TestClient {
  constructor(
    readonly url: string,
    readonly token = "",
    readonly refreshToken = "",
  ) {}

  async raw(
    method: string,
    path: string,
    body?: unknown,
    headers: Record<string, string> = {},
  ): Promise<Response> {
    return fetch(this.url + path, {
      method,
      headers: {
        ...(this.token ? { Authorization: `Bearer ${this.token}` } : {}),
        ...(body === undefined ? {} : { "Content-Type": "application/json" }),
        ...headers,
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
  }

  async json(method: string, path: string, body: unknown, status: number, headers = {}): Promise<Json> {
    const response = await this.raw(method, path, body, headers);
    const text = await response.text();
    if (response.status !== status) {
      throw new Error(`${method} ${path}: ${response.status} instead of ${status}: ${text}`);
    }
    return text === "" ? {} : JSON.parse(text);
  }

  get(path: string, status = 200): Promise<Json> {
    return this.json("GET", path, undefined, status);
  }

  async list(path: string): Promise<Json[]> {
    const response = await this.raw("GET", path);
    if (response.status !== 200) throw new Error(`GET ${path}: ${response.status}: ${await response.text()}`);
    const items: Json[] = JSON.parse(await response.text());
    return items;
  }

  post(path: string, body: unknown = {}, status = 200, headers: Record<string, string> = {}): Promise<Json> {
    return this.json("POST", path, body, status, headers);
  }

  put(path: string, body: unknown, status = 200): Promise<Json> {
    return this.json("PUT", path, body, status);
  }

  delete(path: string, status = 204, headers: Record<string, string> = {}): Promise<Json> {
    return this.json("DELETE", path, undefined, status, headers);
  }

  /** Creates an environment and waits until it runs (or has failed). */
  async environment(body: Json): Promise<Json> {
    return this.post("/api/v1/environments", body, 201, { Prefer: "wait=60" });
  }

  /** An open terminal of an environment. */
  terminal(environmentId: string, query = ""): Promise<TestSocket> {
    return TestSocket.open(`${this.url}/api/v1/ws/terminal/${environmentId}?token=${this.token}${query}`);
  }

  logs(environmentId: string, query = ""): Promise<TestSocket> {
    return TestSocket.open(`${this.url}/api/v1/ws/logs/${environmentId}?token=${this.token}${query}`);
  }
}

/** A WebSocket client that remembers everything it was sent. */
export class TestSocket {
  readonly messages: Json[] = [];
  /** Data of all `output` messages. */
  text = "";
  closed: { code: number; reason: string } | undefined;
  #waiting: (() => void)[] = [];

  private constructor(readonly socket: WebSocket) {
    socket.onmessage = (event) => {
      if (typeof event.data === "string") {
        const message: Json = JSON.parse(event.data);
        this.messages.push(message);
        if (message.type === "output") this.text += String(message.data);
      }
      this.#wake();
    };
    socket.onclose = ({ code, reason }) => {
      this.closed = { code, reason };
      this.#wake();
    };
  }

  static async open(
    url: string,
    protocols: string[] = [],
    headers: Record<string, string> = {},
  ): Promise<TestSocket> {
    const socket = new WebSocket(url.replace(/^http/, "ws"), { protocols, headers });
    const client = new TestSocket(socket);
    await new Promise<void>((resolve, reject) => {
      socket.onopen = () => resolve();
      socket.onerror = () => reject(new Error(`no WebSocket at ${url.replace(/token=[^&]*/, "token=…")}`));
    });
    return client;
  }

  send(message: Json): void {
    this.socket.send(JSON.stringify(message));
  }

  type(data: string): void {
    this.send({ type: "input", data });
  }

  /** Resolves when `condition` gives something, asking again after every message. */
  async until<T>(what: string, condition: () => T | undefined | false, timeoutMs = 20_000): Promise<T> {
    const end = Date.now() + timeoutMs;
    for (;;) {
      const result = condition();
      if (result) return result;
      const leftMs = end - Date.now();
      if (leftMs <= 0 || this.closed) {
        const state = this.closed ? `closed ${this.closed.code} ${this.closed.reason}` : "open";
        throw new Error(`no ${what} (${state}); messages: ${JSON.stringify(this.messages).slice(-2000)}`);
      }
      await Promise.race([new Promise<void>((resolve) => this.#waiting.push(resolve)), Bun.sleep(leftMs)]);
    }
  }

  message(type: string, where: (message: Json) => boolean = () => true): Promise<Json> {
    return this.until(`message ${type}`, () => this.messages.find((m) => m.type === type && where(m)));
  }

  prints(text: string | RegExp): Promise<true> {
    return this.until(`output ${text}`, () =>
      typeof text === "string" ? this.text.includes(text) || undefined : text.test(this.text) || undefined,
    );
  }

  async closes(): Promise<{ code: number; reason: string }> {
    while (!this.closed) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    return this.closed;
  }

  close(): void {
    this.socket.close();
  }

  #wake(): void {
    for (const resolve of this.#waiting.splice(0)) resolve();
  }
}

/** Reads a process's two streams, and waits for lines in them. */
export class Output {
  text = "";
  #waiting: (() => void)[] = [];

  constructor(...streams: ReadableStream<Uint8Array>[]) {
    for (const stream of streams) void this.#read(stream);
  }

  async line(pattern: RegExp): Promise<RegExpExecArray> {
    for (;;) {
      const match = pattern.exec(this.text);
      if (match) return match;
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
  }

  async #read(stream: ReadableStream<Uint8Array>): Promise<void> {
    const decoder = new TextDecoder();
    for await (const chunk of stream) {
      this.text += decoder.decode(chunk, { stream: true });
      for (const resolve of this.#waiting.splice(0)) resolve();
    }
  }
}
