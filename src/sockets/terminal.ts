import type { EnvironmentStatus } from "../db/schema.ts";
import { isSettled } from "../environments/lifecycle.ts";
import { AppError, notFound } from "../errors.ts";
import { backoffMs } from "../lib/backoff.ts";
import { newId } from "../lib/ids.ts";
import type { Logger } from "../lib/logger.ts";
import { RuntimeRejected, RuntimeUnreachable, type TerminalSize } from "../runtime/runtime.ts";
import type { Attachment, Viewer } from "../terminal/attachment.ts";
import type { Attached, TerminalHub } from "../terminal/hub.ts";
import { gapMessage, outputMessage, sessionFields, sizeMessage } from "../terminal/protocol.ts";
import type { EnvironmentAccess, SocketEnvironment, SocketStatusChange } from "./access.ts";
import { CLOSE, RESUMED_ELSEWHERE } from "./close.ts";
import type { Channel, Peer } from "./connection.ts";
import { SOCKET_LIMITS } from "./limits.ts";
import { statusUpdate } from "./status.ts";
import { parseTerminalFrame, placeIn, type TerminalRequest } from "./terminal-frames.ts";
import { TypedInput } from "./typed-input.ts";

export interface TerminalDeps {
  environments: EnvironmentAccess;
  hub: TerminalHub;
  log: Logger;
}

const OPEN_ATTEMPTS = 6;
const OPEN_BACKOFF = { baseMs: 500, maxMs: 8000 };
/** A shell that is lost so soon counts as one that could not be opened. */
const SHORT_LIFE_MS = 1000;

/** A client's side of `/api/v1/ws/terminal/{id}`. @throws AppError for one that can't have a terminal */
export function serveTerminal(
  peer: Peer,
  environmentId: string,
  request: TerminalRequest,
  deps: TerminalDeps,
): Channel {
  const environment = deps.environments.find(peer.actor, environmentId);
  if (!environment) throw notFound("Environment");
  if (isSettled(environment.status) ? environment.status !== "running" : environment.status === "stopping") {
    throw new AppError("invalid", environment.message ?? `Environment is ${environment.status}`);
  }
  const terminal = new TerminalSocket(peer, environment, request, deps);
  terminal.begin();
  return terminal;
}

/** One client of a terminal, through waiting for its environment, restarts of it, and lost shells. */
class TerminalSocket implements Channel, Viewer {
  readonly #peer: Peer;
  readonly #deps: TerminalDeps;
  readonly #request: TerminalRequest;
  readonly #clientId: string;
  readonly #environment: SocketEnvironment;
  readonly #unwatch: () => void;
  readonly #input: TypedInput;
  #attachment: Attachment | null = null;
  /** What it takes up or goes on with when it attaches next; `isGone`: whose successor; null: a new one. */
  #wanted: { sessionId: string | null; offset: number | null; isGone: boolean };
  /** Counts the attempts to attach: what an overtaken one brings is let go. */
  #attempt = 0;
  #isOpening = false;
  /** How many shells in a row could not be opened or were lost at once. */
  #failures = 0;
  #begunAt = Number.NEGATIVE_INFINITY;
  #retryTimer: Timer | undefined;
  #size: TerminalSize | null;
  #resizeTimer: Timer | undefined;
  #toldWaiting: EnvironmentStatus | null = null;
  /** How far its output from sessions before this one has gone: acknowledgements of that may still come. */
  #leftAt = 0;
  #isClosed = false;

  constructor(peer: Peer, environment: SocketEnvironment, request: TerminalRequest, deps: TerminalDeps) {
    this.#peer = peer;
    this.#deps = deps;
    this.#request = request;
    this.#wanted = { sessionId: request.sessionId, offset: request.offset, isGone: false };
    this.#clientId = request.clientId ?? newId();
    this.#environment = { ...environment };
    this.#size = request.size;
    this.#unwatch = deps.environments.watch(environment.id, (change) => this.#follow(change));
    this.#input = new TypedInput(peer);
  }

  begin(): void {
    if (this.#environment.status === "running") {
      void this.#open("first");
      return;
    }
    this.#welcome(null);
    this.#tellWaiting();
    this.#tellStatus(Date.now());
  }

  message(message: unknown): void {
    const frame = parseTerminalFrame(message);
    switch (frame?.type) {
      case "input":
        this.#type(Buffer.from(frame.data), frame.seq);
        return;
      case "resize":
        this.#resize({ cols: frame.cols, rows: frame.rows });
        return;
      case "ack":
        this.#acknowledge(frame.offset);
        return;
      case undefined:
        this.#peer.complain("Invalid message: input, resize, ack or ping with their fields are expected");
    }
  }

  binary(frame: Uint8Array): void {
    this.#type(frame, undefined);
  }

  drain(): void {
    this.#attachment?.pump();
  }

  closed(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#unwatch();
    clearTimeout(this.#retryTimer);
    clearTimeout(this.#resizeTimer);
    this.#leave();
  }

  // What the session tells its viewer.

  get unsentBytes(): number {
    return this.#peer.unsentBytes;
  }

  output(bytes: Uint8Array, offset: number): void {
    if (this.#peer.speaksBinary) this.#peer.sendBinary(bytes);
    else this.#peer.sendText(outputMessage(bytes, offset));
  }

  gap(bytes: number, offset: number, restore: string): void {
    this.#peer.send(gapMessage(bytes, offset, restore));
  }

  resized(size: TerminalSize): void {
    this.#peer.send(sizeMessage(size));
  }

  exited(code: number | null): void {
    // Where it was only the way to it that was lost, it goes on.
    this.#wanted = { ...this.#wanted, offset: this.#attachment?.offset ?? null };
    const { isSettled } = this.#input;
    this.#leave();
    // The shells of an environment that restarts end too; the socket waits for the next one.
    if (!this.#isRunning()) return;
    if (code === null) {
      if (isSettled || !this.#peer.speaksBinary) this.#shellLost();
      // Part of its input may be gone. What it sends again is told from what is on its way by a new connection only.
      else this.#peer.close(CLOSE.tryAgainLater, "The terminal was lost. Connect again.");
      return;
    }
    this.#peer.send({ type: "exit", code });
    this.#peer.close(CLOSE.normal, "Shell exited");
  }

  displaced(): void {
    this.#peer.close(CLOSE.normal, RESUMED_ELSEWHERE);
  }

  inputFlows(): void {
    this.#input.flows();
  }

  // Opening.

  /** @param which only of the first does a client hear nothing before it is there, or has failed */
  async #open(which: "first" | "next"): Promise<void> {
    this.#attempt += 1;
    const attempt = this.#attempt;
    this.#isOpening = true;
    try {
      const attached = await this.#deps.hub.attach(this.#environment.id, {
        ...this.#wanted,
        clientId: this.#clientId,
        inputFrom: () => this.#input.from,
        size: this.#size,
        readOnly: this.#request.readOnly,
        text: !this.#peer.speaksBinary,
        acknowledges: this.#peer.speaksBinary,
        viewer: this,
      });
      if (attempt === this.#attempt && !this.#isClosed) this.#take(attached);
      else letGo(attached);
    } catch (error) {
      if (attempt === this.#attempt && !this.#isClosed) this.#openFailed(error, which);
    }
  }

  #take(attached: Attached): void {
    const { attachment, resumed } = attached;
    this.#isOpening = false;
    this.#attachment = attachment;
    this.#wanted = { sessionId: attached.session.id, offset: null, isGone: false };
    this.#takePlace(attached.session.id);
    this.#begunAt = resumed ? Number.NEGATIVE_INFINITY : performance.now();
    // It may have changed since it was asked for.
    if (this.#size) attachment.resize(this.#size);
    this.#welcome(attached);
    attachment.start();
    // One whose shell has ended has told so, and is left already.
    if (this.#attachment === attachment) this.#input.attach(attachment);
  }

  #takePlace(sessionId: string): void {
    const mode = this.#request.readOnly ? "view" : "edit";
    const place = placeIn(this.#environment.id, { session_id: sessionId, client_id: this.#clientId, mode });
    if (place !== null) this.#peer.takePlace(place);
  }

  #openFailed(error: unknown, which: "first" | "next"): void {
    // A viewer waits for somebody else to go on with what it has looked at.
    const mayBegin = which === "next" && error instanceof AppError && error.code === "not_found";
    if (!(error instanceof RuntimeUnreachable || error instanceof RuntimeRejected || mayBegin)) {
      this.#peer.fail(error);
      return;
    }
    this.#failures += 1;
    if (which === "first" && this.#failures === 1) this.#welcome(null);
    this.#openLater(error, which);
  }

  #shellLost(): void {
    this.#peer.send({ type: "info", message: "The terminal was lost. It is being opened again." });
    const isAtOnce = performance.now() - this.#begunAt < SHORT_LIFE_MS;
    this.#failures = isAtOnce ? this.#failures + 1 : 0;
    if (isAtOnce)
      this.#openLater(new RuntimeUnreachable("The shell was lost as soon as it had begun"), "next");
    else void this.#open("next");
  }

  #openLater(error: Error, which: "first" | "next"): void {
    if (this.#failures >= OPEN_ATTEMPTS) {
      this.#deps.log.warn("a terminal could not be opened", { environment: this.#environment.id, error });
      const told =
        error instanceof AppError ? error : new AppError("unavailable", "The terminal can't be opened now");
      this.#peer.fail(told);
      return;
    }
    this.#isOpening = true;
    this.#retryTimer = setTimeout(
      () => {
        if (this.#isRunning()) void this.#open(which);
        else this.#isOpening = false;
      },
      backoffMs(OPEN_BACKOFF, this.#failures),
    );
  }

  #isRunning(): boolean {
    return (
      this.#deps.environments.find(this.#peer.actor, this.#environment.id)?.status === "running" &&
      !this.#isClosed
    );
  }

  /** Lets go of the session, with what was typed into it. */
  #leave(): void {
    this.#attempt += 1;
    this.#isOpening = false;
    this.#input.leave();
    this.#leftAt = Math.max(this.#leftAt, this.#attachment?.offset ?? 0);
    this.#attachment?.detach();
    this.#attachment = null;
  }

  // The environment's life.

  #follow(change: SocketStatusChange): void {
    const { status: previous } = this.#environment;
    Object.assign(this.#environment, {
      status: change.status,
      message: change.message,
      progress: change.progress,
      installationCompleted: change.installationCompleted,
    });
    this.#tellStatus(change.atMs);
    switch (change.status) {
      case "running":
        if (previous === "running") return;
        clearTimeout(this.#retryTimer);
        this.#leave();
        this.#wanted = { ...this.#wanted, offset: null, isGone: true };
        this.#failures = 0;
        void this.#open("next");
        return;
      case "stopping":
      case "stopped":
      case "terminated":
        this.#peer.close(CLOSE.normal, "Environment stopped");
        return;
      case "error":
        this.#peer.fail(new AppError("invalid", change.message ?? "Environment failed"));
        return;
      case "creating":
      case "provisioning":
      case "installing":
      case "configuring":
      case "restarting":
        return;
    }
  }

  #welcome(attached: Attached | null): void {
    const { id, name, template, status, installationCompleted } = this.#environment;
    this.#peer.send({
      type: "welcome",
      message: `Connected to ${name}`,
      environment: {
        id,
        name,
        template,
        status,
        installation_completed: installationCompleted,
        pty_enabled: attached !== null,
      },
      ...(attached ? sessionFields(attached.session, attached.attachment, attached) : {}),
    });
  }

  #tellStatus(atMs: number): void {
    this.#peer.send(statusUpdate(this.#environment.id, { ...this.#environment, atMs }));
  }

  /** Once for each status, however much is typed. */
  #tellWaiting(): void {
    const { status } = this.#environment;
    if (this.#toldWaiting === status) return;
    this.#toldWaiting = status;
    const message =
      status === "installing"
        ? "Environment is still installing. Terminal will be available once installation completes."
        : `Environment is ${status}. Terminal will be available once it is running.`;
    this.#peer.send({ type: "info", message });
  }

  // What the client sends.

  #acknowledge(offset: number): void {
    const isKnown = this.#attachment?.acknowledge(offset) ?? true;
    if (!isKnown && offset > this.#leftAt) this.#peer.complain("Acknowledged more than was sent");
  }

  #type(bytes: Uint8Array, seq: number | undefined): void {
    if (this.#request.readOnly) this.#peer.complain("This connection can only view the terminal");
    else if (this.#attachment === null && !this.#isOpening) {
      this.#input.drop(bytes.length, seq);
      this.#tellWaiting();
    } else this.#input.type(bytes, seq);
  }

  /** The first is applied at once, of those that follow closely the last. */
  #resize(size: TerminalSize): void {
    this.#size = size;
    if (this.#resizeTimer !== undefined) return;
    this.#attachment?.resize(size);
    this.#resizeTimer = setTimeout(() => {
      this.#resizeTimer = undefined;
      if (this.#size && this.#size !== size) this.#resize(this.#size);
    }, SOCKET_LIMITS.resizeEveryMs);
  }
}

/** Nobody is there any more to take it: a shell that was begun for this alone ends. */
function letGo({ session, attachment, resumed }: Attached): void {
  attachment.detach();
  // In place of another it is for all who come back to that.
  if (!resumed && session.inPlaceOf === null) session.kill();
}
