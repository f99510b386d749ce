/*
 * The contract between DevPocket and what environments run on. `local/` and `kubernetes/` fulfil it and
 * test/runtime-contract.ts is run against both.
 *
 * A runtime holds no intent: it is told what to bring about and says what is there. Everything that it
 * remembers is a cache of what it could observe again.
 */

/** Names one environment to a runtime; the names of its objects follow from it alone. */
export interface EnvironmentRef {
  environmentId: string;
  userId: string;
}

/** What a runtime has of an environment, whether or not DevPocket knows that environment. */
export interface Remains extends EnvironmentRef {
  /** In the runtime's own terms: folders, an API's paths. */
  objects: readonly string[];
}

export interface ResourceLimits {
  cpuMillis: number;
  memoryBytes: number;
  storageBytes: number;
}

export interface EnvironmentSpec extends EnvironmentRef {
  /** The owner's name for it, a DNS label: hostname and labels, never an identity. */
  name: string;
  /** Containers carry it: those of another generation are replaced. */
  generation: number;
  /** Null: the local runtime's own shell, a plain Debian image on a cluster. */
  image: string | null;
  startupCommands: string[];
  /** The template's with the owner's over them. */
  variables: Record<string, string>;
  resources: ResourceLimits;
  /** What the application in it listens on. */
  port: number;
  /** Linux capabilities to keep, without CAP_. */
  capabilities: string[];
  /** What all environments of the user may take together; null: no quota (administrators). */
  userQuota: (ResourceLimits & { environments: number }) | null;
}

/** What keeps an environment from getting on. `message` is for its owner, with what to do about it. */
export interface Problem {
  kind: ProblemKind;
  message: string;
  /** Since when it has stood, in milliseconds since the epoch. */
  sinceMs: number;
}

/**
 * - `image_pull`, `unschedulable`: may pass; ends in error after a deadline of its own
 * - `quota`, `ending`: may pass, waited for as long as something of the same user is torn down
 * - `missing`, `altered`: somebody has deleted or changed what `ensure` makes, which makes it again; where
 *   `running` containers are not touched by it, `mend` does
 * - `command_failed`, `crashed`, `out_of_memory`, `rejected`: final, an error at once
 */
export const PROBLEM_KINDS = [
  "image_pull",
  "unschedulable",
  "quota",
  "ending",
  "missing",
  "altered",
  "command_failed",
  "crashed",
  "out_of_memory",
  "rejected",
] as const;
export type ProblemKind = (typeof PROBLEM_KINDS)[number];

/**
 * What there is of an environment. `generation` is that of the containers (or of those being made).
 *
 * - `absent`: nothing at all
 * - `stopped`: the workspace is kept, nothing runs or is being ended
 * - `provisioning`: volume, scheduling, image; nothing of the environment's runs yet
 * - `installing`: startup command `step` of `steps` runs (from 1)
 * - `configuring`: commands done, not yet ready
 * - `running`: ready for terminals
 * - `stopping`: something is still being ended
 *   `lastGeneration` of these two: whose containers they were, where it is the containers alone that are gone
 * - `failed`: the containers of this generation will not get on by themselves
 *
 * A `problem` of what has begun to run is one that `mend` takes away.
 */
export type Observed =
  | { phase: "absent" }
  | { phase: "stopped"; lastGeneration?: number }
  | { phase: "stopping"; lastGeneration?: number }
  | { phase: "provisioning"; generation: number; message: string; problem?: Problem }
  | {
      phase: "installing";
      generation: number;
      step: number;
      steps: number;
      message: string;
      startedAtMs: number;
      problem?: Problem;
    }
  | { phase: "configuring"; generation: number; startedAtMs: number; problem?: Problem }
  | { phase: "running"; generation: number; startedAtMs: number; problem?: Problem }
  | { phase: "failed"; generation: number; problem: Problem };

/** How many bytes a terminal's far side may hold back before `write` says so. */
export const PTY_INPUT_HIGH_WATER_BYTES = 256 * 1024;

export interface TerminalSize {
  cols: number;
  rows: number;
}

/**
 * How far a client's input has come with some bytes of it: `bytes` in all, as `seq` whole messages and `part`
 * bytes of the next. `client` has no spaces.
 */
export interface InputPlace {
  client: string;
  bytes: number;
  seq: number;
  part: number;
}

export interface TerminalOptions {
  size: TerminalSize;
  /** Letters and digits, unique: where terminals outlive the server, `heldTerminal` finds it by this. */
  sessionId?: string;
  /**
   * Called with what the terminal prints, in order. The bytes are valid during the call only.
   */
  onData(bytes: Uint8Array): void;
  /**
   * Called where `bytes` of output are missing between what `onData` was given and what it is given next; `modes`
   * are sequences that set a terminal's modes and title as what is missing has.
   */
  onGap?(bytes: number, modes: string): void;
  /** Called once, after the last `onData`: the shell's exit code, 128+n for signal n; null: lost on the way. */
  onExit(code: number | null): void;
  /** Called when input that `write` refused may go on. */
  onDrain(): void;
  /** Called by a Pty that `confirmsInput`: what was written up to `place` is taken, whatever befalls the server. */
  onTaken?(place: InputPlace): void;
}

/** What runs in a terminal besides its shell. */
export interface TerminalJobs {
  /** Name of the program in the foreground, as `ps` shows it; null: the shell itself. */
  foreground: string | null;
  /** Processes of the terminal session other than its shell, in the background too. */
  count: number;
}

/** A shell on a pseudo-terminal inside an environment. After its exit every method does nothing. */
export interface Pty {
  /**
   * Takes all of `bytes`, which are the caller's again afterwards. False when more than
   * PTY_INPUT_HIGH_WATER_BYTES wait on the way: nothing more should be written before `onDrain`.
   */
  write(bytes: Uint8Array, place?: InputPlace): boolean;
  /** Else what is written is as good as taken. */
  readonly confirmsInput?: boolean;
  resize(size: TerminalSize): void;
  /** No `onData` follows (but for what is already on its way) until `resume`; the far side is held up. */
  pause(): void;
  resume(): void;
  /** Ends the shell and every process of its terminal session. */
  kill(): void;
  /** Lets go of it and leaves it running. No such method: it ends with the server. */
  release?(): void;
  /** Null, or no such method: not known. A terminal that nobody looks at is kept while it has jobs. */
  jobs?(): Promise<TerminalJobs | null>;
}

/** A terminal that has outlived the server which opened it. */
export interface HeldTerminal {
  /** Offset of the oldest byte of output that there still is: the first that `begin` gives. */
  readonly offset: number;
  /** Offset of the first byte that was not printed yet. */
  readonly endOffset: number;
  readonly size: TerminalSize;
  /** Sequences that set a terminal's modes and title as the output before `offset` has. */
  readonly modes: string;
  readonly createdAtMs: number;
  /** Of clients that have typed, the last one last. */
  readonly input: InputPlace[];
  /** Gives what there is up to `endOffset`, and nothing after it before the Pty's `resume`. */
  begin(options: Omit<TerminalOptions, "size" | "sessionId">): Pty;
  /** Instead of `begin`. */
  release(): void;
}

export type LogSource = "container" | "application" | "system";
export type LogLevel = "DEBUG" | "INFO" | "WARN" | "ERROR";

export interface LogLine {
  atMs: number;
  level: LogLevel;
  /** `container`: the installation; `application`: what runs afterwards; `system`: the runtime's own events. */
  source: LogSource;
  /** One line without its end; no control characters but those of colours. */
  message: string;
  generation: number;
  /** Opaque: given back as `after`, the log goes on with exactly the next line. */
  cursor: string;
}

/** Null: not known. */
export interface Usage {
  cpuMillis: number | null;
  memoryBytes: number | null;
  storageBytes: number | null;
  /** Counters since the containers started. */
  networkRxBytes: number | null;
  networkTxBytes: number | null;
  startedAtMs: number | null;
}

export interface ComponentHealth {
  name: string;
  status: "healthy" | "degraded" | "unhealthy";
  message: string;
}

export interface NodeRoom {
  cpuMillis: number;
  memoryBytes: number;
}

/** Null: not known. `used*` are sums of requests, not of measured use. */
export interface Capacity {
  nodes: number;
  readyNodes: number;
  totalCpuMillis: number | null;
  usedCpuMillis: number | null;
  totalMemoryBytes: number | null;
  usedMemoryBytes: number | null;
  /** What nothing has requested on each of the nodes that take containers. Absent: not known, or of no account. */
  nodeRooms?: NodeRoom[];
  totalStorageBytes: number | null;
  usedStorageBytes: number | null;
  components: ComponentHealth[];
}

export interface Runtime {
  /**
   * What there is. Absent is an answer.
   *
   * @throws RuntimeUnreachable when the runtime can't be asked
   */
  observe(ref: EnvironmentRef): Promise<Observed>;

  /*
   * The next four bring about what they name or begin to, may be repeated at will, and resolve before it
   * is done: `observe` says when. They throw RuntimeUnreachable, or RuntimeRejected for what will never be.
   */

  /** Workspace and containers as `spec` says; containers of another generation are replaced. */
  ensure(spec: EnvironmentSpec): Promise<void>;
  /**
   * Brings back what somebody has changed around containers that run, and leaves those alone, whatever `spec`
   * says of them. No such method: there is nothing to change.
   */
  mend?(spec: EnvironmentSpec): Promise<void>;
  /** Ends every process; the workspace stays. */
  stop(ref: EnvironmentRef): Promise<void>;
  /**
   * Ends every process and leaves nothing behind, in the end `absent`.
   *
   * @param found of `list`: deleted too, where `ensure` would have named or placed them otherwise
   */
  remove(ref: EnvironmentRef, found?: Remains["objects"]): Promise<void>;

  /** Environments at which something may have changed: hints, some lost and some twice. Ends with `signal`. */
  changes(signal: AbortSignal): AsyncIterable<EnvironmentRef>;

  /**
   * A shell in a running environment, `bash` where there is one, else `sh`, in the workspace.
   *
   * @throws RuntimeUnreachable, or RuntimeRejected when the environment does not run
   */
  openTerminal(ref: EnvironmentRef, options: TerminalOptions): Promise<Pty>;

  /**
   * Ids of the terminals that run in an environment and may be taken up. No such method: terminals end with
   * the server.
   *
   * @throws RuntimeUnreachable
   */
  heldTerminals?(ref: EnvironmentRef): Promise<string[]>;
  /**
   * Takes one up, also one that has ended and of whose end nobody has heard. Null: it is gone.
   *
   * @throws RuntimeUnreachable
   */
  heldTerminal?(ref: EnvironmentRef, sessionId: string): Promise<HeldTerminal | null>;

  /**
   * The environment's log from after the line with cursor `after` (null: from its beginning), then as it
   * grows. Ends when `signal` aborts, or when the containers are gone and everything has been given.
   */
  logs(ref: EnvironmentRef, options: { after: string | null; signal: AbortSignal }): AsyncIterable<LogLine>;

  /** Null for an environment that does not run. */
  usage(ref: EnvironmentRef): Promise<Usage | null>;
  capacity(): Promise<Capacity>;
  /** All that carries our labels, whoever it belongs to: for the sweep. */
  list(): Promise<Remains[]>;
  /**
   * Lets go of watches and connections. Environments run on where they can, and their terminals then tell an
   * exit of null: another runtime may take them up.
   */
  close(): Promise<void>;
}

/** The runtime could not be asked; trying again later may help. Nothing is said about the environment. */
export class RuntimeUnreachable extends Error {
  override readonly name = "RuntimeUnreachable";
}

/** The runtime has understood and refuses; trying again as it is will not help. `message` is for the owner. */
export class RuntimeRejected extends Error {
  override readonly name = "RuntimeRejected";
  readonly kind: ProblemKind;

  constructor(kind: ProblemKind, message: string, options?: ErrorOptions) {
    super(message, options);
    this.kind = kind;
  }
}
