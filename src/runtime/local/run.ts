import { randomBytes } from "node:crypto";
import { createLineReader } from "../lines.ts";
import type { EnvironmentSpec, LogLine, Problem } from "../runtime.ts";
import { failureMessage, type Mark, parseMark, SYSTEM_PATH, withoutSeparator } from "../startup.ts";
import type { Folders } from "./folders.ts";
import type { Owned } from "./owned.ts";
import { endProcesses, readProcess, signal } from "./processes.ts";
import { type LocalPty, spawnPty } from "./pty.ts";
import { startupCommand, writeRunDir } from "./rundir.ts";
import type { Sandbox } from "./sandbox.ts";
import { findInit, findSupervisor, SANDBOX_RUN_DIR, SANDBOX_WORKSPACE } from "./sandbox.ts";

const STARTUP_TERMINAL = { cols: 120, rows: 40 };
/** How long a sandbox's processes may take to end; a little more than the startup script grants them. */
const SANDBOX_GRACE_MS = 5000;
/** A phase is told this late at most, however slowly the log is read. */
const LOG_TAKEN_MS = 250;
/** What runs in the background may print this much a second into the log; then it is held up. */
const LOG_BYTES_PER_SECOND = 1024 * 1024;

export type RunPhase =
  | { kind: "installing"; step: number; steps: number; message: string }
  | { kind: "running" }
  | { kind: "failed"; problem: Problem }
  | { kind: "ended" };

export interface RunOptions {
  spec: EnvironmentSpec;
  /** Those of the template that are run here. */
  commands: string[];
  folders: Folders;
  sandbox: Sandbox | null;
  owned: Owned;
  now: () => number;
  retryPauseSeconds: number;
  /** How long processes without a sandbox may take to end by themselves. */
  graceMs: number;
  onLines(lines: Pick<LogLine, "level" | "source" | "message">[]): void;
  onChange(): void;
  /** When the log's readers have come after; null: they have. */
  logCaughtUp(): Promise<void> | null;
  /** When they have taken all that is written; null: they have. */
  logTaken(): Promise<void> | null;
}

/** The processes of one environment for one generation, from the startup script's begin to its end. */
export class Run {
  readonly generation: number;
  readonly startedAtMs: number;
  readonly #options: RunOptions;
  readonly #nonce: string;
  #pty: LocalPty | undefined;
  #phase: RunPhase;
  /** The phase that is told, once the readers of the log have what was printed before it. */
  #told: RunPhase;
  /** The sandbox's pid 1 as the host knows it. */
  #init: Promise<number | undefined> | undefined;
  #askedToEnd = false;
  #failed: Mark | undefined;
  /** The startup script runs and takes signals. */
  #marked = false;
  #ending: Promise<void> | undefined;
  #windowBegan = 0;
  #windowBytes = 0;
  /** Until then the first process prints nothing. */
  #restsUntil = 0;
  #resting: PromiseWithResolvers<void> | null = null;

  private constructor(options: RunOptions, nonce: string) {
    this.#options = options;
    this.#nonce = nonce;
    this.generation = options.spec.generation;
    this.startedAtMs = options.now();
    this.#phase = { kind: "installing", step: 1, steps: options.commands.length, message: "Starting" };
    this.#told = this.#phase;
  }

  /** Writes what the processes need and starts the first one. */
  static async begin(options: RunOptions): Promise<Run> {
    const nonce = randomBytes(16).toString("hex");
    const { spec, folders, sandbox } = options;
    await writeRunDir(folders.runDir, {
      name: spec.name,
      variables: spec.variables,
      startup: {
        commands: options.commands,
        nonce,
        workspace: sandbox ? SANDBOX_WORKSPACE : folders.workspace,
        readyFile: null,
        failureFile: null,
        retryPauseSeconds: options.retryPauseSeconds,
      },
    });
    const run = new Run(options, nonce);
    run.#start();
    return run;
  }

  get phase(): RunPhase {
    return this.#told;
  }

  get isOver(): boolean {
    return this.#phase.kind === "failed" || this.#phase.kind === "ended";
  }

  get pid(): number {
    return this.#pty?.pid ?? 0;
  }

  /** Resolves when the first process is gone and its last output was taken. */
  get ended(): Promise<void> {
    return this.#pty?.ended ?? Promise.resolve();
  }

  /** The sandbox's pid 1 on the host, for those who want to join it. */
  async init(): Promise<number | undefined> {
    this.#init ??= findInit(this.pid);
    const init = await this.#init;
    if (init === undefined) this.#init = undefined;
    return init;
  }

  /** Ends every process. Resolves when none is left; may be called again. */
  async end(): Promise<void> {
    this.#askedToEnd = true;
    this.#resting?.resolve();
    this.#ending ??= this.#end().finally(() => {
      this.#ending = undefined;
    });
    await this.#ending;
  }

  #start(): void {
    const { spec, folders, sandbox, owned } = this.#options;
    const command = sandbox
      ? sandbox.wrap(startupCommand(SANDBOX_RUN_DIR), {
          hostname: spec.name,
          workspace: folders.workspace,
          runDir: folders.runDir,
        })
      : startupCommand(folders.runDir);
    const env = { PATH: SYSTEM_PATH, ...owned.markOf(spec.environmentId) };
    let lines: string[] = [];
    const reader = createLineReader((line) => lines.push(line));
    this.#pty = spawnPty(
      command,
      { cwd: folders.workspace, env },
      {
        size: STARTUP_TERMINAL,
        onData: (bytes) => {
          reader.push(bytes);
          const read = lines;
          lines = [];
          this.#take(read);
          this.#holdUpFlood(bytes.byteLength);
        },
        onDrain: () => {},
        onExit: (code) => {
          reader.end();
          this.#take(lines);
          this.#exited(code);
        },
      },
    );
  }

  #take(lines: string[]): void {
    let said: Pick<LogLine, "level" | "source" | "message">[] = [];
    for (const line of lines) {
      const mark = parseMark(line, this.#nonce);
      if (mark) {
        if (said.length > 0) this.#options.onLines(said);
        said = [];
        this.#follow(mark);
      } else {
        const source = this.#phase.kind === "installing" ? "container" : "application";
        said.push({ level: "INFO", source, message: withoutSeparator(line) });
      }
    }
    if (said.length > 0) this.#options.onLines(said);
  }

  #follow(mark: Mark): void {
    this.#marked = true;
    switch (mark.kind) {
      case "step":
        this.#become({
          kind: "installing",
          step: mark.step,
          steps: mark.steps,
          message: `Step ${mark.step} of ${mark.steps}: ${mark.command}`,
        });
        return;
      case "retry":
        this.#become({
          kind: "installing",
          step: mark.step,
          steps: mark.steps,
          message: `Step ${mark.step} of ${mark.steps}, attempt ${mark.attempt}`,
        });
        return;
      case "failed":
        this.#failed = mark;
        return;
      case "done":
        this.#become({ kind: "running" });
    }
  }

  #become(phase: RunPhase): void {
    this.#phase = phase;
    const taken = this.#options.logTaken();
    if (taken === null) this.#tell();
    else void Promise.race([taken, Bun.sleep(LOG_TAKEN_MS)]).then(() => this.#tell());
  }

  #tell(): void {
    if (this.#told === this.#phase) return;
    this.#told = this.#phase;
    this.#options.onChange();
  }

  #exited(code: number | null): void {
    if (this.#askedToEnd) {
      this.#become({ kind: "ended" });
      return;
    }
    const sinceMs = this.#options.now();
    if (this.#failed?.kind === "failed") {
      const message = failureMessage(this.#failed);
      this.#become({ kind: "failed", problem: { kind: "command_failed", message, sinceMs } });
      return;
    }
    const message = `The environment's first process ended unexpectedly (exit code ${code ?? "unknown"})`;
    this.#become({ kind: "failed", problem: { kind: "crashed", message, sinceMs } });
  }

  #holdUpFlood(bytes: number): void {
    const now = performance.now();
    if (now - this.#windowBegan > 1000) {
      this.#windowBegan = now;
      this.#windowBytes = 0;
    }
    this.#windowBytes += bytes;
    if (this.#windowBytes > LOG_BYTES_PER_SECOND) {
      this.#windowBegan += 1000;
      this.#windowBytes = 0;
      this.#restsUntil = this.#windowBegan;
    }
    this.#restWhileAhead();
  }

  #restWhileAhead(): void {
    const reason = this.#resting ? null : this.#reasonToRest();
    if (!reason) return;
    const resting = Promise.withResolvers<void>();
    this.#resting = resting;
    this.#pty?.pause();
    void reason.then(resting.resolve);
    void resting.promise.then(() => {
      this.#resting = null;
      this.#restWhileAhead();
      if (!this.#resting) this.#pty?.resume();
    });
  }

  /** Until when nothing more is to be printed; null: it may be. */
  #reasonToRest(): Promise<void> | null {
    const restMs = this.#restsUntil - performance.now();
    if (restMs > 0) return Bun.sleep(restMs);
    // The last words of what is to end wait for no reader.
    return this.#askedToEnd ? null : this.#options.logCaughtUp();
  }

  async #end(): Promise<void> {
    if (this.#options.sandbox) await this.#endSandbox();
    else await this.#endPlain();
    await this.ended;
  }

  async #endPlain(): Promise<void> {
    const { owned, spec, graceMs } = this.#options;
    const left = await endProcesses(
      () => owned.processesOf(spec.environmentId, this.isOver ? [] : [this.pid]),
      { graceMs },
    );
    if (left > 0) throw new Error(`${left} processes of the environment could not be ended`);
  }

  /** The first process ends the others in order; with pid 1 the kernel ends whatever is left. */
  async #endSandbox(): Promise<void> {
    if (this.isOver) return;
    const init = await this.init();
    const supervisor = init === undefined ? undefined : await findSupervisor(init);
    if (this.#marked && supervisor !== undefined && signal(supervisor, "SIGTERM")) {
      const limit = Promise.withResolvers<void>();
      const timer = setTimeout(limit.resolve, SANDBOX_GRACE_MS);
      await Promise.race([this.ended, limit.promise]);
      clearTimeout(timer);
    }
    if (this.isOver) return;
    // bwrap ends with pid 1, having reaped it; killed itself, it would leave that to the host's pid 1.
    const isChild = init !== undefined && (await readProcess(init))?.parent === this.pid;
    if (!isChild || !signal(init, "SIGKILL")) signal(this.pid, "SIGKILL");
  }
}
