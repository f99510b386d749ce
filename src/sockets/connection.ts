import { AppError } from "../errors.ts";
import type { Actor, ServerSocket, SocketHandlers } from "../http/context.ts";
import { giveBack } from "../lib/give-back.ts";
import type { Logger } from "../lib/logger.ts";
import { TokenBucket } from "../lib/token-bucket.ts";
import { CLOSE, type CloseCode, closeReason, refusal } from "./close.ts";
import type { Connections, Member } from "./connections.ts";
import type { Credential } from "./credentials.ts";
import { SOCKET_LIMITS } from "./limits.ts";
import type { Tickets } from "./tickets.ts";

/** A client whose identity is known, as an endpoint sees it. */
export interface Peer {
  readonly actor: Actor;
  /** It has chosen `devpocket.v1.binary`. */
  readonly speaksBinary: boolean;
  /** What has been sent to it and not yet taken by the network. */
  readonly unsentBytes: number;
  /** How many messages it may still send; taken by endpoints for what counts as one. */
  readonly messages: TokenBucket | null;
  /** What it has come to be of its user's, see `Member`. */
  takePlace(place: string): void;
  send(message: { type: string; [field: string]: unknown }): void;
  /** A frame of JSON made by the caller. */
  sendText(frame: string): void;
  /** The bytes are taken over during the call. */
  sendBinary(frame: Uint8Array): void;
  /** An `error` message for a frame that is of no use; the socket stays. Counts against the message limit. */
  complain(message: string): void;
  /** R1's `error` message for someone over the message limit: once, until `underLimit`. */
  overLimit(): void;
  underLimit(): void;
  /** Ends the connection because of `error`: an `error` message where the client may know it, then the close code. */
  fail(error: unknown): void;
  close(code: CloseCode, reason: string): void;
}

/** What an endpoint does with one client. */
export interface Channel {
  /** A JSON message other than `ping` and `auth`, not yet checked. */
  message(message: unknown): void;
  /** A binary frame from a peer that speaks binary; valid during the call only. */
  binary(frame: Uint8Array): void;
  /** The network has taken what was unsent, or part of it. */
  drain(): void;
  /** The connection has ended, whoever ended it. Called once. */
  closed(): void;
}

export interface ConnectionOptions {
  ip: string;
  credential: Credential;
  /** What it comes back to, if it says so. */
  place: string | null;
  speaksBinary: boolean;
  /** A reason to turn the client away as soon as it is connected. */
  refuse: unknown;
  authenticate(token: string): Promise<Actor>;
  tickets: Tickets;
  connections: Connections;
  /** 0: no limit. */
  messagesPerMinute: number;
  /** Makes the endpoint's side of it; throws AppError to turn the client away. */
  serve(peer: Peer): Channel;
  log: Logger;
}

const BACKLOG_MESSAGE = "Too much was sent before it could be taken";

/** One WebSocket from its upgrade to its end: who is there, keepalive, limits; the rest is its channel's. */
export class Connection implements SocketHandlers, Member {
  readonly #options: ConnectionOptions;
  #socket: ServerSocket | null = null;
  #actor: Actor | null = null;
  #channel: Channel | null = null;
  #state: "new" | "anonymous" | "authenticating" | "open" | "closed" = "new";
  #authenticationTimer: Timer | undefined;
  /** Frames that came while it was being found out who is there. */
  #early: (string | Buffer)[] = [];
  #earlyBytes = 0;
  readonly #messages: TokenBucket | null;
  #overLimit = false;
  lastHeardAt: number;
  place: string | null;

  constructor(options: ConnectionOptions) {
    this.#options = options;
    this.place = options.place;
    this.lastHeardAt = options.connections.now();
    const perMinute = options.messagesPerMinute;
    this.#messages = perMinute > 0 ? new TokenBucket({ capacity: perMinute, perMinute }) : null;
  }

  get ip(): string {
    return this.#options.ip;
  }

  get hasCredential(): boolean {
    return this.#options.credential.kind !== "none";
  }

  get actor(): Actor | null {
    return this.#actor;
  }

  open(socket: ServerSocket): void {
    this.#socket = socket;
    this.#state = "anonymous";
    try {
      this.#options.connections.enter(this);
      if (this.#options.refuse !== null) throw this.#options.refuse;
    } catch (error) {
      this.fail(error);
      return;
    }
    const { credential } = this.#options;
    if (credential.kind !== "none") {
      void this.#authenticate(credential);
      return;
    }
    this.#authenticationTimer = setTimeout(
      () => this.fail(new AppError("unauthenticated", "Authentication timed out")),
      SOCKET_LIMITS.authenticationMs,
    );
  }

  message(_socket: ServerSocket, frame: string | Buffer): void {
    try {
      if (this.#state === "open") this.#receive(frame);
      else if (this.#state === "authenticating") this.#keepForLater(frame);
      else if (this.#state === "anonymous") this.#introduce(frame);
    } catch (error) {
      this.fail(error);
    }
    this.lastHeardAt = this.#options.connections.now();
  }

  drain(): void {
    this.#channel?.drain();
  }

  heartbeat(): void {
    this.lastHeardAt = this.#options.connections.now();
  }

  close(): void {
    this.#ended();
  }

  end(code: CloseCode, reason: string): void {
    if (this.#isClosed()) return;
    const socket = this.#socket;
    this.#ended();
    socket?.close(code, closeReason(reason));
  }

  fail(error: unknown): void {
    const known = refusal(error);
    if (!known) this.#options.log.error("a WebSocket failed", { error });
    const { code, message } = known ?? { code: CLOSE.internal, message: "Internal server error" };
    this.#sendText(JSON.stringify({ type: "error", message }));
    this.end(code, message);
  }

  ping(): void {
    this.#socket?.ping();
  }

  terminate(): void {
    this.#socket?.terminate();
    this.#ended();
  }

  /** The first message of a client that brought no credential: it must be one. */
  #introduce(frame: string | Buffer): void {
    const message = parse(frame);
    const { type, token, ticket } = isRecord(message) ? message : {};
    if (type === "auth" && typeof token === "string") void this.#authenticate({ kind: "token", token });
    else if (type === "auth" && typeof ticket === "string") {
      void this.#authenticate({ kind: "ticket", ticket });
    } else this.fail(new AppError("unauthenticated", "Authentication required"));
  }

  async #authenticate(credential: Exclude<Credential, { kind: "none" }>): Promise<void> {
    clearTimeout(this.#authenticationTimer);
    this.#state = "authenticating";
    try {
      const { tickets, authenticate, connections, serve } = this.#options;
      const actor =
        credential.kind === "ticket"
          ? tickets.redeem(credential.ticket)
          : await authenticate(credential.token);
      if (this.#isClosed()) return;
      connections.identify(this, actor.userId);
      this.#actor = actor;
      this.#state = "open";
      this.#channel = serve(this.#peer(actor));
      // The endpoint may have turned it away while it was being made.
      if (this.#isClosed()) this.#channel.closed();
      const early = this.#early;
      this.#early = [];
      for (const frame of early) this.#receive(frame);
    } catch (error) {
      this.fail(error);
    }
  }

  #keepForLater(frame: string | Buffer): void {
    this.#earlyBytes += frame.length;
    if (this.#earlyBytes > SOCKET_LIMITS.heldBackBytes) {
      this.fail(new AppError("too_large", BACKLOG_MESSAGE));
    } else this.#early.push(typeof frame === "string" ? frame : Buffer.from(frame));
  }

  #receive(frame: string | Buffer): void {
    const channel = this.#channel;
    if (channel === null) return;
    if (typeof frame !== "string" && this.#options.speaksBinary) {
      channel.binary(frame);
      giveBack(frame);
      return;
    }
    const message = parse(frame);
    if (!isRecord(message) || typeof message.type !== "string") {
      this.#complain("Not a message: a JSON object with a type is expected");
    } else if (message.type === "ping") {
      this.#reply({ type: "pong" });
    } else if (message.type !== "auth") {
      // `auth` again is no fault: a client that always introduces itself may have a token in its URL too.
      channel.message(message);
    }
  }

  #peer(actor: Actor): Peer {
    const connection = this;
    return {
      actor,
      speaksBinary: this.#options.speaksBinary,
      messages: this.#messages,
      get unsentBytes() {
        return connection.#isClosed() ? 0 : (connection.#socket?.getBufferedAmount() ?? 0);
      },
      takePlace: (place) => {
        this.place = place;
      },
      send: (message) => this.#sendText(JSON.stringify(message)),
      sendText: (frame) => this.#sendText(frame),
      sendBinary: (frame) => this.#sendBinary(frame),
      complain: (message) => this.#complain(message),
      overLimit: () => this.#sayOverLimit(),
      underLimit: () => {
        this.#overLimit = false;
      },
      fail: (error) => this.fail(error),
      close: (code, reason) => this.end(code, reason),
    };
  }

  #sendText(frame: string): void {
    if (!this.#isClosed()) this.#socket?.sendText(frame);
  }

  #sendBinary(frame: Uint8Array): void {
    if (!this.#isClosed()) this.#socket?.sendBinary(frame);
  }

  /** What answers a client's own message: one that reads nothing is answered no more. */
  #reply(message: object): void {
    const unsent = this.#socket?.getBufferedAmount() ?? 0;
    if (unsent <= SOCKET_LIMITS.unsentRepliesBytes) this.#sendText(JSON.stringify(message));
  }

  #complain(message: string): void {
    if (this.#messages && !this.#messages.take()) this.#sayOverLimit();
    else this.#reply({ type: "error", message });
  }

  #sayOverLimit(): void {
    if (this.#overLimit) return;
    this.#overLimit = true;
    this.#reply({ type: "error", message: "Rate limit exceeded. Please slow down." });
  }

  #isClosed(): boolean {
    return this.#state === "closed";
  }

  #ended(): void {
    if (this.#isClosed()) return;
    this.#state = "closed";
    clearTimeout(this.#authenticationTimer);
    this.#early = [];
    this.#options.connections.leave(this);
    this.#channel?.closed();
  }
}

function parse(frame: string | Buffer): unknown {
  try {
    return JSON.parse(typeof frame === "string" ? frame : frame.toString("utf8"));
  } catch {
    return undefined;
  }
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
