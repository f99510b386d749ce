import type { Logger } from "../../lib/logger.ts";
import type { Semaphore } from "../../lib/semaphore.ts";
import {
  type EnvironmentRef,
  type EnvironmentSpec,
  type LogLine,
  type Observed,
  type Pty,
  RuntimeRejected,
  type TerminalOptions,
} from "../runtime.ts";
import { SYSTEM_PATH } from "../startup.ts";
import { foldersOf, makeFolders, removeFolders, type State, writeState } from "./folders.ts";
import { Journal } from "./journal.ts";
import type { Owned } from "./owned.ts";
import { endProcesses, readProcess } from "./processes.ts";
import { spawnPty } from "./pty.ts";
import { Run } from "./run.ts";
import { shellCommand } from "./rundir.ts";
import { SANDBOX_RUN_DIR, SANDBOX_WORKSPACE, type Sandbox } from "./sandbox.ts";

/** What all environments of one local runtime have in common. */
export interface Host {
  dataDir: string;
  hostBoot: string;
  sandbox: Sandbox | null;
  /** Why there is no sandbox. */
  noSandboxReason: string | null;
  owned: Owned;
  log: Logger;
  now: () => number;
  retryPauseSeconds: number;
  graceMs: number;
  /** Starting processes: a few at a time. */
  starts: Semaphore;
  onChange(ref: EnvironmentRef): void;
  onGone(ref: EnvironmentRef): void;
}

type Target = { kind: "run"; spec: EnvironmentSpec } | { kind: "stop" } | { kind: "remove" };

/** One environment on this host: brings about what it was told last, one step at a time. */
export class LocalEnvironment {
  readonly ref: EnvironmentRef;
  readonly #host: Host;
  readonly #folders: ReturnType<typeof foldersOf>;
  readonly #journal: Journal;
  #state: State | undefined;
  #target: Target | undefined;
  #run: Run | undefined;
  #working: Promise<void> = Promise.resolve();
  #isWorking = false;
  #askedAgain = false;
  #gone = false;
  /** Lines that the disk did not take, and of which the log does not tell yet. */
  #unwritten = 0;
  /** Why the run that is wanted could not be begun. */
  #beginFailure: { generation: number; message: string; sinceMs: number } | undefined;

  /** @param state what is on disk; undefined for one that is new */
  constructor(host: Host, ref: EnvironmentRef, state: State | undefined) {
    this.#host = host;
    this.ref = ref;
    this.#state = state;
    this.#folders = foldersOf(host.dataDir, ref.environmentId);
    this.#journal = new Journal(this.#folders.log);
  }

  ensure(spec: EnvironmentSpec): void {
    if (this.#target?.kind === "remove") return;
    this.#target = { kind: "run", spec };
    this.#work();
  }

  stop(): void {
    if (this.#target?.kind === "remove") return;
    this.#target = { kind: "stop" };
    this.#work();
  }

  remove(): void {
    this.#target = { kind: "remove" };
    this.#work();
  }

  /** Ends the processes for good, without a word in the log: the server stops. */
  async shutDown(): Promise<void> {
    this.#target = undefined;
    await this.#working;
    await this.#run?.end();
    this.#journal.close();
  }

  get isOver(): boolean {
    return this.#gone;
  }

  /** The run whose processes are there. */
  get running(): Run | undefined {
    return this.#run && !this.#run.isOver ? this.#run : undefined;
  }

  get requests(): State["resources"] | undefined {
    return this.running ? this.#state?.resources : undefined;
  }

  get workspace(): string {
    return this.#folders.workspace;
  }

  observe(): Observed {
    if (this.#gone) return { phase: "absent" };
    const target = this.#target;
    const run = this.#run;
    switch (target?.kind) {
      case "remove":
        return { phase: "stopping" };
      case undefined:
      case "stop":
        return run || this.#isWorking ? { phase: "stopping" } : { phase: "stopped" };
      case "run":
        return this.#observeRun(target.spec.generation, run);
    }
  }

  #observeRun(generation: number, run: Run | undefined): Observed {
    const failure = this.#beginFailure;
    if (failure?.generation === generation) {
      const { message, sinceMs } = failure;
      return { phase: "failed", generation, problem: { kind: "crashed", message, sinceMs } };
    }
    if (run?.generation !== generation) {
      return { phase: "provisioning", generation, message: "Preparing the workspace" };
    }
    const { phase, startedAtMs } = run;
    switch (phase.kind) {
      case "installing": {
        const { step, steps, message } = phase;
        return { phase: "installing", generation, step, steps, message, startedAtMs };
      }
      case "running":
        return { phase: "running", generation, startedAtMs };
      case "failed":
        return { phase: "failed", generation, problem: phase.problem };
      case "ended":
        return { phase: "provisioning", generation, message: "Preparing the workspace" };
    }
  }

  async openTerminal(options: TerminalOptions): Promise<Pty> {
    const run = this.#run;
    if (run?.phase.kind !== "running") throw notRunning();
    const { sandbox, owned } = this.#host;
    const place = sandbox
      ? { runDir: SANDBOX_RUN_DIR, workspace: SANDBOX_WORKSPACE }
      : { runDir: this.#folders.runDir, workspace: this.#folders.workspace };
    const shell = shellCommand(place.runDir, place.workspace);
    const init = sandbox ? await run.init() : undefined;
    if ((sandbox && init === undefined) || run.isOver) throw notRunning();
    const command = sandbox && init !== undefined ? sandbox.join(shell, init) : shell;
    const env = { PATH: SYSTEM_PATH, TERM: "xterm-256color", ...owned.markOf(this.ref.environmentId) };
    return spawnPty(command, { cwd: this.#folders.workspace, env }, options);
  }

  logs(after: string | null, signal: AbortSignal): AsyncIterable<LogLine> {
    return this.#journal.read(after, signal, () => this.#gone || !(this.running || this.#isBeginning));
  }

  get #isBeginning(): boolean {
    return this.#isWorking && this.#target?.kind === "run";
  }

  /** Level-triggered: goes on until what is there is what was asked for last. */
  #work(): void {
    this.#askedAgain = true;
    if (!this.#isWorking) this.#working = this.#workWhileAsked();
  }

  async #workWhileAsked(): Promise<void> {
    this.#isWorking = true;
    while (this.#askedAgain) {
      this.#askedAgain = false;
      try {
        await this.#converge();
      } catch (error) {
        this.#host.log.error("local environment", { environment: this.ref.environmentId, error });
      }
    }
    // In the same turn as the look at what was asked: whoever asks later begins anew.
    this.#isWorking = false;
    this.#journal.wake();
    this.#changed();
  }

  async #converge(): Promise<void> {
    for (;;) {
      const target = this.#target;
      if (!target || this.#isReached(target)) return;
      this.#changed();
      await this.#endRun();
      // Something else may have been asked meanwhile.
      if (this.#target !== target) continue;
      if (target.kind === "remove") await this.#removeAll();
      else if (target.kind === "run") await this.#begin(target.spec);
    }
  }

  #isReached(target: Target): boolean {
    switch (target.kind) {
      case "remove":
        return this.#gone;
      case "stop":
        return !this.#run;
      case "run": {
        const { generation } = target.spec;
        if (this.#beginFailure?.generation === generation) return true;
        return this.#run?.generation === generation && this.#run.phase.kind !== "ended";
      }
    }
  }

  async #endRun(): Promise<void> {
    const run = this.#run;
    this.#beginFailure = undefined;
    if (!run) return;
    const wasOver = run.isOver;
    if (!wasOver) this.#say(run.generation, "Stopping");
    await run.end();
    if (!wasOver) this.#say(run.generation, "Stopped");
    this.#run = undefined;
    this.#journal.close();
    if (this.#state) await this.#keep({ ...this.#state, run: null });
  }

  async #begin(spec: EnvironmentSpec): Promise<void> {
    try {
      await makeFolders(this.#folders);
      await this.#keep({ userId: spec.userId, name: spec.name, resources: spec.resources, run: null });
      const commands = this.#announce(spec);
      this.#run = await this.#host.starts.run(async () => {
        const run = await Run.begin({
          spec,
          commands,
          folders: this.#folders,
          sandbox: this.#host.sandbox,
          owned: this.#host.owned,
          now: this.#host.now,
          retryPauseSeconds: this.#host.retryPauseSeconds,
          graceMs: this.#host.graceMs,
          onLines: (lines) => this.#write(lines.map((line) => ({ ...line, generation: spec.generation }))),
          onChange: () => this.#runChanged(),
          logCaughtUp: () => this.#journal.caughtUp(),
          logTaken: () => this.#journal.taken(),
        });
        // Starting a process holds up the event loop for milliseconds: others get their turn between two.
        await new Promise((resolve) => setImmediate(resolve));
        return run;
      });
      await this.#rememberRun(this.#run);
      this.#runChanged();
    } catch (error) {
      this.#host.log.error("local environment could not be started", {
        environment: this.ref.environmentId,
        error,
      });
      const message = "The environment could not be started on the server's host; its log says why";
      this.#beginFailure = { generation: spec.generation, message, sinceMs: this.#host.now() };
    }
  }

  async #rememberRun(run: Run): Promise<void> {
    const process = await readProcess(run.pid);
    if (!this.#state || !process) return;
    const { pid, startTicks } = process;
    const { hostBoot, owned } = this.#host;
    const { installation } = owned;
    await this.#keep({ ...this.#state, run: { pid, startTicks, hostBoot, installation } });
  }

  #runChanged(): void {
    if (this.#run?.phase.kind === "failed") {
      // What its commands have left in the background has no use any more.
      void this.#run.end().catch((error: unknown) => this.#host.log.warn("local environment", { error }));
      this.#journal.wake();
    }
    this.#changed();
  }

  /** Says what is begun, and gives the commands that are to be run. */
  #announce(spec: EnvironmentSpec): string[] {
    const { sandbox, noSandboxReason } = this.#host;
    const how = sandbox ? "in a sandbox" : `without a sandbox (${noSandboxReason})`;
    this.#say(spec.generation, `Starting on the local runtime, ${how}`);
    if (spec.image === null) return spec.startupCommands;
    for (const command of spec.startupCommands) {
      this.#say(spec.generation, `not run on the local runtime: ${command.replace(/\s+/g, " ")}`);
    }
    return [];
  }

  async #removeAll(): Promise<void> {
    this.#journal.close();
    await removeFolders(this.#folders);
    this.#gone = true;
    this.#host.onGone(this.ref);
  }

  async #keep(state: State): Promise<void> {
    await writeState(this.#folders, state);
    this.#state = state;
  }

  #say(generation: number, message: string): void {
    this.#write([{ level: "INFO", source: "system", message, generation }]);
  }

  #write(lines: Omit<LogLine, "atMs" | "cursor">[]): void {
    const atMs = this.#host.now();
    const gap = this.#unwritten > 0 && lines[0] ? [unwritten(this.#unwritten, lines[0].generation)] : [];
    try {
      this.#journal.append([...gap, ...lines].map((line) => ({ atMs, ...line })));
      this.#unwritten = 0;
    } catch (error) {
      if (this.#unwritten === 0)
        this.#host.log.warn("the log of a local environment can't be written", {
          environment: this.ref.environmentId,
          error,
        });
      this.#unwritten += lines.length;
    }
  }

  #changed(): void {
    this.#host.onChange(this.ref);
  }
}

function unwritten(lines: number, generation: number): Omit<LogLine, "atMs" | "cursor"> {
  const message = `${lines} lines are missing here: the server's disk could not take them`;
  return { level: "WARN", source: "system", message, generation };
}

/** Ends what a dead server has left of `environmentId`; never a process that has only got the same pid. */
export async function endLeftovers(
  host: Host,
  environmentId: string,
  state: State | undefined,
): Promise<void> {
  const { hostBoot, owned } = host;
  const run = state?.run;
  const isOurs =
    run?.hostBoot === hostBoot && (run.installation ?? owned.installation) === owned.installation;
  const left = isOurs ? run : null;
  const process = left ? await readProcess(left.pid) : undefined;
  const roots = process && process.startTicks === left?.startTicks ? [process.pid] : [];
  await endProcesses(() => owned.processesOf(environmentId, roots), { graceMs: host.graceMs });
}

function notRunning(): RuntimeRejected {
  return new RuntimeRejected("rejected", "The environment is not running");
}
