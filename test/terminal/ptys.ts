import { spawnPty as spawnLocalPty } from "../../src/runtime/local/pty.ts";
import type {
  HeldTerminal,
  InputPlace,
  Pty,
  TerminalJobs,
  TerminalOptions,
  TerminalSize,
} from "../../src/runtime/runtime.ts";

/** A terminal that prints what the test says and keeps what it is told. */
export class ScriptedPty implements Pty {
  readonly options: TerminalOptions;
  readonly sizes: TerminalSize[];
  typed = "";
  isPaused = false;
  isKilled = false;
  /** False: it takes no more input until `drain`. */
  takesInput = true;
  running: TerminalJobs | null = { foreground: null, count: 0 };

  constructor(options: TerminalOptions) {
    this.options = options;
    this.sizes = [options.size];
  }

  print(bytes: Uint8Array | string): void {
    this.options.onData(typeof bytes === "string" ? Buffer.from(bytes) : bytes);
  }

  drain(): void {
    this.takesInput = true;
    this.options.onDrain();
  }

  write(bytes: Uint8Array): boolean {
    this.typed += Buffer.from(bytes).toString();
    return this.takesInput;
  }

  resize(size: TerminalSize): void {
    this.sizes.push(size);
  }

  pause(): void {
    this.isPaused = true;
  }

  resume(): void {
    this.isPaused = false;
  }

  kill(): void {
    if (this.isKilled) return;
    this.isKilled = true;
    this.options.onExit(129);
  }

  async jobs(): Promise<TerminalJobs | null> {
    return this.running;
  }
}

export const LEFT_SIZE = { cols: 111, rows: 22 };

/** A shell that an earlier server has left, with so many bytes of output from `offset` on. */
export class LeftShell implements HeldTerminal {
  readonly offset: number;
  readonly endOffset: number;
  readonly size = LEFT_SIZE;
  readonly createdAtMs = 1;
  readonly input: InputPlace[];
  readonly modes: string;
  isReleased = false;
  timesTakenUp = 0;
  pty: ScriptedPty | undefined;

  constructor(
    bytes = 0,
    { offset = 0, input = [], modes = "" }: { offset?: number; input?: InputPlace[]; modes?: string } = {},
  ) {
    this.modes = modes;
    this.offset = offset;
    this.endOffset = offset + bytes;
    this.input = input;
  }

  begin(options: Omit<TerminalOptions, "size" | "sessionId">) {
    this.timesTakenUp += 1;
    this.pty = new ScriptedPty({ ...options, size: LEFT_SIZE });
    this.pty.isPaused = true;
    return Object.assign(this.pty, { release: () => this.release() });
  }

  release(): void {
    this.isReleased = true;
  }
}

const ENV = { PATH: "/usr/bin:/bin", TERM: "xterm-256color", LANG: "C.UTF-8", PS1: "$ " };

/** A real terminal with `command` in it, as the local runtime's are. */
export async function spawnPty(options: TerminalOptions, command: string[]): Promise<Pty> {
  return spawnLocalPty(command, { cwd: "/tmp", env: ENV }, options);
}
