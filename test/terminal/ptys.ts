import type { Pty, TerminalJobs, TerminalOptions, TerminalSize } from "../../src/runtime/runtime.ts";

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

const IXON = 0o2000;

/** A real PTY with `command` in it, held up by XOFF as the local runtime's are. */
export async function spawnPty(options: TerminalOptions, command: string[]): Promise<Pty> {
  let ended = false;
  const child = Bun.spawn(command, {
    env: { PATH: "/usr/bin:/bin", TERM: "xterm-256color", LANG: "C.UTF-8", PS1: "$ " },
    cwd: "/tmp",
    terminal: {
      ...options.size,
      data: (_terminal, bytes) => options.onData(bytes),
      drain: () => options.onDrain(),
    },
  });
  const { terminal } = child;
  if (!terminal) throw new Error("no terminal");
  void child.exited.then(async () => {
    // What it printed last is still on its way.
    await Bun.sleep(20);
    ended = true;
    options.onExit(child.signalCode ? 128 + 15 : child.exitCode);
    terminal.close();
  });
  return {
    write(bytes) {
      if (!ended) terminal.write(bytes);
      return true;
    },
    resize({ cols, rows }) {
      if (!ended) terminal.resize(cols, rows);
    },
    pause() {
      if (ended) return;
      terminal.inputFlags |= IXON;
      terminal.write("\x13");
    },
    resume() {
      if (!ended) terminal.write("\x11");
    },
    kill() {
      child.kill("SIGKILL");
    },
  };
}
