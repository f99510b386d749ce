import { afterAll } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { FrameReader, frameOf, numbersOf } from "../../../src/runtime/kubernetes/terminals/frames.ts";
import { until } from "../../until.ts";
import { cutPipes, spawnBetweenPipes } from "./pipes.ts";

export const HOLDER = join(import.meta.dir, "../../../src/runtime/kubernetes/terminals/holder.pl");

/** For how many seconds a flood is held up once the connection is lost. */
const PATIENCE = "0";

/** Where holders of this test file are, as in a container; removed when its tests have ended. */
export function holderFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "devpocket-held-"));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  return join(folder, "terminals");
}

/** A connection to a holder, run by this machine's perl as an exec would in a container. */
export class HeldSession {
  /** Sockets can't be opened anew by the holder: then a relay stays between them. */
  static through: "pipes" | "sockets" = "pipes";
  readonly #process: Bun.Subprocess<"pipe", "pipe", "ignore">;
  readonly frames: { type: string; text: string }[] = [];
  readonly reading: Promise<void>;
  receivedBytes = 0;
  onOutput: (bytes: Uint8Array) => void;

  constructor(args: string[], onOutput: (bytes: Uint8Array) => void = () => {}, holder = ["perl", HOLDER]) {
    this.onOutput = onOutput;
    const command = [...holder, ...args];
    this.#process =
      HeldSession.through === "pipes"
        ? spawnBetweenPipes(command)
        : Bun.spawn(command, { stdin: "pipe", stdout: "pipe", stderr: "ignore", detached: true });
    this.reading = this.#read();
  }

  static open(
    folder: string,
    id: string,
    command: string,
    onOutput?: (bytes: Uint8Array) => void,
    patience = PATIENCE,
  ) {
    return new HeldSession(["open", folder, id, patience, "90", "30", "/bin/sh", "-c", command], onOutput);
  }

  static attach(
    folder: string,
    id: string,
    offset: number,
    onOutput?: (bytes: Uint8Array) => void,
    patience = PATIENCE,
  ) {
    return new HeldSession(["attach", folder, id, patience, String(offset)], onOutput);
  }

  send(type: string, text = "", bytes?: Uint8Array): void {
    this.#process.stdin.write(frameOf(type, text, bytes));
    void this.#process.stdin.flush();
  }

  /** Lets it send everything there will be. */
  letGo(): this {
    this.send("c", String(Number.MAX_SAFE_INTEGER));
    return this;
  }

  /** Input of one client, `bytes` of which it has then typed in all. */
  type(text: string, bytes: number, client = "one"): void {
    this.send("w", `${client} ${bytes} 0 0\n`, Buffer.from(text));
  }

  async frame(type: string): Promise<string> {
    const found = await until(() => this.frames.find((frame) => frame.type === type), {
      timeoutMs: 20_000,
      message: () => `no ${type} in ${JSON.stringify(this.frames)}`,
    });
    return found.text;
  }

  /** START FROM END COLS ROWS SINCE */
  async head(): Promise<number[]> {
    return numbersOf((await this.frame("h")).split("\n")[0] ?? "");
  }

  /** Stops what the exec has started, as if it got no time. */
  stopRelay(): void {
    this.#process.kill("SIGSTOP");
  }

  /** As a connection that is lost: nothing is said, what is on the way is gone. */
  async cut(): Promise<void> {
    this.onOutput = () => {};
    cutPipes(this.#process);
    await this.#process.exited;
  }

  async #read(): Promise<void> {
    const reader = new FrameReader({
      onOutput: (bytes) => {
        this.receivedBytes += bytes.length;
        this.onOutput(bytes);
      },
      onFrame: (type, text) => this.frames.push({ type, text }),
    });
    for await (const bytes of this.#process.stdout) if (!reader.push(bytes)) throw new Error("no frames");
  }
}

/** Ids of the sessions whose command runs. */
export async function heldSessions(folder: string): Promise<string[]> {
  const run = Bun.spawn(["perl", HOLDER, "list", folder], { stdout: "pipe" });
  return (await run.stdout.text()).split("\n").filter((line) => line !== "");
}

export async function endHeldSessions(folder: string): Promise<void> {
  for (const id of await heldSessions(folder)) {
    const session = HeldSession.attach(folder, id, 0).letGo();
    session.send("k");
    await session.frame("x");
    await session.cut();
  }
}
