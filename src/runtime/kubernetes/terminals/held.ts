import { backoffMs } from "../../../lib/backoff.ts";
import { newId } from "../../../lib/ids.ts";
import {
  type HeldTerminal,
  type InputPlace,
  type Pty,
  RuntimeUnreachable,
  type TerminalJobs,
  type TerminalOptions,
  type TerminalSize,
} from "../../runtime.ts";
import { EXTEND_PATH } from "../../startup.ts";
import type { Connection } from "../api/connection.ts";
import { KubeStatusError } from "../api/errors.ts";
import { type ExecTarget, runCommand } from "../api/exec.ts";
import { HOLDER_SCRIPT, TERMINALS_FOLDER } from "../manifests/manifests.ts";
import { frameOf } from "./frames.ts";
import { type Dialled, dial, formatPlace, type HeldHead, type Link, parsePlace } from "./link.ts";
import { UnconfirmedInput } from "./unconfirmed.ts";
import { Window } from "./window.ts";

const RECONNECT = { baseMs: 100, maxMs: 5_000 };
/** A container that answers so often without a holder has none any more. */
const MOST_REFUSALS = 3;
/** How long to try to tell a holder that it is to end. */
const KILL_LIMIT_MS = 120_000;
const PING_EVERY_MS = 20_000;
/** No answer for this long: the connection is dead, whatever its sockets say. */
const SILENT_MS = 50_000;
const JOBS_TIMEOUT_MS = 5_000;
/**
 * For how long a holder holds a flood up when its connection is lost: as long as it takes to notice that it is,
 * to find a way back, or to start the server again.
 */
const PATIENCE_SECONDS = 90;

/** The name of a socket. */
const SESSION_ID = /^[0-9a-z]{1,40}$/i;

const NO_HOLDER_EXIT_CODE = 90;
// The shell that it starts has the owner's PATH, and no variable of ours.
const WITH_HOLDER = `set -- "$(${EXTEND_PATH}; command -v perl)" ${HOLDER_SCRIPT} "$@"
[ -n "$1" ] && [ -r "$2" ] || exit ${NO_HOLDER_EXIT_CODE}
exec "$@"`;

function holderCommand(verb: string, ...args: (string | number)[]): string[] {
  return ["/bin/sh", "-c", WITH_HOLDER, "sh", verb, TERMINALS_FOLDER, ...args.map(String)];
}

/** @param offset of the first byte of output that is wanted */
function attachCommand(sessionId: string, offset: number): string[] {
  return holderCommand("attach", sessionId, PATIENCE_SECONDS, offset);
}

type Callbacks = Omit<TerminalOptions, "size" | "sessionId">;

/** Where in a cluster a session is. */
export interface HeldPlace {
  connection: Connection;
  target: ExecTarget;
  sessionId: string;
  /** When it aborts, the connection is not to be used any more: the terminal is let go of. */
  signal: AbortSignal;
}

/**
 * Begins a session that outlives this server. Null: this container has nothing to hold it with.
 *
 * @throws KubeStatusError, RuntimeUnreachable
 */
export async function openHeld(
  place: HeldPlace,
  shell: string[],
  { size, ...callbacks }: TerminalOptions,
): Promise<Pty | null> {
  const terminal = new Held(place);
  const { cols, rows } = size;
  const command = holderCommand("open", place.sessionId, PATIENCE_SECONDS, cols, rows, ...shell);
  try {
    const answer = await terminal.connect(command);
    if (answer === "held") {
      const pty = terminal.begin(callbacks);
      pty.resume();
      return pty;
    }
    if (answer !== "refused") throw cut();
    terminal.release();
    return null;
  } catch (error) {
    // Unless the API server has said no, it may run for all that.
    if (error instanceof KubeStatusError) terminal.release();
    else terminal.kill();
    throw error;
  }
}

/**
 * Takes a session up, with all of its output that there is. Null: it is gone.
 *
 * @throws KubeStatusError, RuntimeUnreachable
 */
export async function resumeHeld(place: HeldPlace): Promise<HeldTerminal | null> {
  if (!SESSION_ID.test(place.sessionId)) return null;
  const terminal = new Held(place);
  try {
    const answer = await terminal.connect(attachCommand(place.sessionId, 0));
    if (answer === "held") return terminal;
    if (answer === "lost") throw cut();
  } catch (error) {
    terminal.release();
    throw error;
  }
  terminal.release();
  return null;
}

function cut(): RuntimeUnreachable {
  return new RuntimeUnreachable("The cluster can't be reached: the connection was cut");
}

export async function listHeld(connection: Connection, target: ExecTarget): Promise<string[]> {
  const { stdout } = await runCommand(connection, target, holderCommand("list"));
  return stdout.split("\n").filter((line) => SESSION_ID.test(line));
}

/**
 * A terminal that a small program in the container holds, holder.pl: it keeps the PTY, the last three
 * megabytes of output by its offsets, and how far each client's input has been applied, and this is one of
 * the connections to it that come and go. When one is lost the next goes on with exactly the next byte in
 * both directions, in this process or, after a restart, in another: for PATIENCE_SECONDS a holder lets nothing
 * be overwritten that the last one has not received.
 *
 * Why a program of our own: tmux and screen draw anew instead of passing bytes on; dtach passes them, but
 * loses what is printed while nobody is attached, and the images have none of them. Perl is in every image
 * that is made from Debian or Ubuntu (perl-base is essential there). Where there is none (Alpine), a terminal
 * is a plain exec and ends with its connection.
 *
 * What it costs, measured on two cores that the cluster is on too: through the whole server nearly as many MB/s as
 * the raw exec socket gives (the ratio's medians in runs of 7 to 11 rounds: 0.95, 0.97, 1.0; with a window of 512 KiB
 * they were 0.80 to 0.90, for the way back to the holder leads through eight processes), the echo of a key in 0.66 ms
 * instead of 0.55 ms (medians), about 6 MB of the container's memory, and 3 MB for the relay that stands by.
 *
 * A holder ends with its shell, with its container, or when nobody has asked for it for a day and nothing
 * but its shell runs in it.
 */
class Held implements Pty, HeldTerminal {
  readonly confirmsInput = true;
  readonly #place: HeldPlace;
  readonly #window = new Window();
  #head: HeldHead | null = null;
  #link: Link | null = null;
  /** Counts connections: what comes of an earlier one is not heard. */
  #attempt = 0;
  #callbacks: Callbacks | null = null;
  #size: TerminalSize | null = null;
  readonly #unconfirmed = new UnconfirmedInput();
  readonly #ownInput: InputPlace = { client: newId(), bytes: 0, seq: 0, part: 0 };
  #jobsAsked: ((jobs: TerminalJobs | null) => void)[] = [];
  #killingSince: number | null = null;
  #isReconnecting = false;
  #ended = false;
  #heardAt = 0;
  #pinging: Timer | undefined;
  readonly #abandon = () => this.#finish(null);

  constructor(place: HeldPlace) {
    this.#place = place;
    if (place.signal.aborted) this.#ended = true;
    else place.signal.addEventListener("abort", this.#abandon);
  }

  // Of a HeldTerminal.

  get offset(): number {
    return this.#head?.start ?? 0;
  }

  get endOffset(): number {
    return this.#head?.end ?? 0;
  }

  get size(): TerminalSize {
    return this.#head?.size ?? { cols: 80, rows: 24 };
  }

  get modes(): string {
    return this.#head?.modes ?? "";
  }

  get createdAtMs(): number {
    return this.#head?.createdAtMs ?? 0;
  }

  get input(): InputPlace[] {
    return this.#head?.input ?? [];
  }

  begin(callbacks: Callbacks): Pty {
    this.#callbacks = callbacks;
    this.#window.begin(this.offset, this.endOffset);
    // A holder sends nothing before it is given credit.
    this.#grant();
    return this;
  }

  release(): void {
    this.#end();
  }

  // Of a Pty.

  write(bytes: Uint8Array, place?: InputPlace): boolean {
    if (this.#ended) return true;
    this.#ownInput.bytes += place ? 0 : bytes.length;
    const at = place ?? { ...this.#ownInput };
    const frame = frameOf("w", `${formatPlace(at)}\n`, bytes);
    this.#link?.sendFrame(frame);
    return this.#unconfirmed.add({ place: at, length: bytes.length, frame });
  }

  resize(size: TerminalSize): void {
    this.#size = size;
    this.#link?.send("r", `${size.cols} ${size.rows}`);
  }

  pause(): void {
    // Only after the last of its output does a holder tell of the end.
    if (this.#killingSince === null) this.#window.pause();
  }

  resume(): void {
    this.#window.resume();
    this.#grant();
  }

  kill(): void {
    if (this.#ended) return;
    this.#killingSince ??= performance.now();
    this.resume();
    if (this.#link) this.#link.send("k");
    else void this.#reconnect();
  }

  jobs(): Promise<TerminalJobs | null> {
    const { promise, resolve } = Promise.withResolvers<TerminalJobs | null>();
    if (!this.#link) return Promise.resolve(null);
    const timer = setTimeout(() => resolve(null), JOBS_TIMEOUT_MS);
    this.#jobsAsked.push((jobs) => {
      clearTimeout(timer);
      resolve(jobs);
    });
    this.#link.send("j");
    return promise;
  }

  // The connection.

  /** @throws KubeStatusError, RuntimeUnreachable */
  async connect(command: string[]): Promise<"held" | "gone" | "refused" | "lost"> {
    this.#attempt += 1;
    const attempt = this.#attempt;
    const isCurrent = () => attempt === this.#attempt && !this.#ended;
    if (this.#ended) throw cut();
    const { connection, target } = this.#place;
    const dialled: Dialled = await dial(connection, target, command, {
      onOutput: (bytes) => isCurrent() && this.#output(bytes),
      onFrame: (type, text) => isCurrent() && this.#hear(type, text),
      onEnd: () => isCurrent() && this.#lost(),
    });
    if (typeof dialled === "string") return dialled;
    if (!isCurrent()) {
      dialled.link.close();
      return "lost";
    }
    this.#head = dialled.head;
    this.#window.capAt(dialled.head.windowBytes);
    this.#link = dialled.link;
    this.#heardAt = performance.now();
    this.#pinging ??= setInterval(() => this.#ping(), PING_EVERY_MS);
    return "held";
  }

  #lost(): void {
    this.#attempt += 1;
    this.#link = null;
    for (const answer of this.#jobsAsked.splice(0)) answer(null);
    void this.#reconnect();
  }

  async #reconnect(): Promise<void> {
    if (this.#isReconnecting || this.#ended) return;
    this.#isReconnecting = true;
    let refusals = 0;
    for (let failures = 1; !this.#ended; failures++) {
      const command = attachCommand(this.#place.sessionId, this.#window.received);
      const answer = await this.connect(command).catch(() => "lost" as const);
      if (answer === "refused") refusals += 1;
      if (answer === "held") {
        this.#isReconnecting = false;
        this.#goOn();
        return;
      }
      const isHopeless =
        this.#killingSince !== null && performance.now() - this.#killingSince > KILL_LIMIT_MS;
      if (answer === "gone" || refusals === MOST_REFUSALS || isHopeless) this.#finish(null);
      else if (!this.#ended) await Bun.sleep(backoffMs(RECONNECT, failures));
    }
  }

  #goOn(): void {
    const link = this.#link;
    if (!link || !this.#head) return;
    const lostBytes = this.#head.from - this.#window.received;
    if (lostBytes > 0) {
      // We were away for longer than a flood is held up for us.
      this.#window.begin(this.#head.from);
      this.#callbacks?.onGap?.(lostBytes, this.#head.modes);
    }
    if (this.#size) link.send("r", `${this.#size.cols} ${this.#size.rows}`);
    for (const frame of this.#unconfirmed.frames()) link.sendFrame(frame);
    if (this.#killingSince !== null) link.send("k");
    if (!this.#callbacks && this.#killingSince === null) return;
    this.#window.grant();
    this.#sendCredit();
  }

  #ping(): void {
    if (!this.#link) return;
    if (performance.now() - this.#heardAt < SILENT_MS) this.#link.send("p");
    else {
      this.#link.close();
      this.#lost();
    }
  }

  // What the holder says.

  #output(bytes: Uint8Array): void {
    this.#heardAt = performance.now();
    this.#window.receive(bytes.length);
    this.#callbacks?.onData(bytes);
    this.#grant();
  }

  #grant(): void {
    if (this.#link && this.#window.grant()) this.#sendCredit();
  }

  #sendCredit(): void {
    this.#link?.send("c", `${this.#window.limit} ${this.#window.aheadBytes}`);
  }

  #hear(type: string, text: string): void {
    this.#heardAt = performance.now();
    if (type === "i") this.#taken(parsePlace(text));
    else if (type === "j") this.#jobsAsked.shift()?.(parseJobs(text));
    else if (type === "x") {
      // The last of its output has come: it need not keep it any longer.
      this.#link?.send("k");
      this.#finish(Number(text));
    }
  }

  #taken(place: InputPlace): void {
    const mayGoOn = this.#unconfirmed.confirm(place);
    this.#callbacks?.onTaken?.(place);
    if (mayGoOn) this.#callbacks?.onDrain();
  }

  #finish(code: number | null): void {
    if (this.#ended) return;
    this.#end();
    this.#callbacks?.onExit(code);
  }

  #end(): void {
    this.#ended = true;
    clearInterval(this.#pinging);
    this.#place.signal.removeEventListener("abort", this.#abandon);
    for (const answer of this.#jobsAsked.splice(0)) answer(null);
    this.#link?.close();
    this.#link = null;
  }
}

function parseJobs(text: string): TerminalJobs {
  const space = text.indexOf(" ");
  const name = Buffer.from(text.slice(space + 1), "latin1").toString();
  return { count: Number(text.slice(0, space)), foreground: name || null };
}
