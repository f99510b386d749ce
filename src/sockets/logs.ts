import { createRoute, z } from "@hono/zod-openapi";
import { invalidField, notFound } from "../errors.ts";
import { bearer, errors, newRouter, type Router } from "../http/router.ts";
import type { StoredLine } from "../logs/chunk.ts";
import { follow } from "../logs/follow.ts";
import type { LogStore } from "../logs/store.ts";
import { acceptSocket, type SocketOptions } from "./accept.ts";
import type { EnvironmentAccess, SocketEnvironment, SocketStatusChange } from "./access.ts";
import { CLOSE } from "./close.ts";
import type { Channel, Peer } from "./connection.ts";
import { LogClientMessage, LogServerMessage, SOCKET_RULES } from "./messages.ts";
import { statusUpdate } from "./status.ts";

/** Above this a client gets nothing more until it has taken the most of it. */
const UNSENT_HIGH_BYTES = 256 * 1024;
const UNSENT_LOW_BYTES = 64 * 1024;

/** The end of an installation is told when its last lines have had this long to arrive from the runtime. */
const LINES_ARRIVE_MS = 250;

/** Status messages that wait for the lines before them; of more the oldest are let go. */
const MAX_NOTICES = 64;

export interface LogSocketOptions {
  store: LogStore;
  environments: EnvironmentAccess;
  sockets: SocketOptions;
}

const logsRoute = createRoute({
  method: "get",
  path: "/api/v1/ws/logs/{environment_id}",
  operationId: "connectLogs",
  tags: ["WebSockets"],
  summary: "The log of an environment as it grows, as a WebSocket",
  description: `Begins with everything since the last installation began, or after the line with the offset
\`since_offset\`. Every line carries its \`offset\`: a client that comes back with the last one it has seen gets
exactly the rest. Messages are JSON text: \`LogClientMessage\` and \`LogServerMessage\`.

${SOCKET_RULES}`,
  security: [{}, ...bearer],
  request: {
    params: z.object({ environment_id: z.string().openapi({ example: "018f2a4e6b7c000012345678" }) }),
    query: z.object({
      token: z.string().optional().openapi({ description: "Access token" }),
      ticket: z.string().optional().openapi({ description: "From POST /api/v1/ws/ticket" }),
      since_offset: z
        .string()
        .optional()
        .openapi({ type: "integer", minimum: 0, description: "Offset of the last line that was seen" }),
    }),
  },
  responses: {
    101: { description: "Connected" },
    ...errors({ 426: "Not a WebSocket upgrade" }),
  },
});

/** The logs WebSocket. */
export function logSocketRoutes({ sockets, ...deps }: LogSocketOptions): Router {
  const router = newRouter();
  router.openAPIRegistry.registerPath(logsRoute);
  router.openAPIRegistry.register("LogClientMessage", LogClientMessage);
  router.openAPIRegistry.register("LogServerMessage", LogServerMessage);
  router.get("/api/v1/ws/logs/:environment_id", (c) =>
    acceptSocket(c, sockets, {
      serve: (peer) => serveLogs(peer, c.req.param("environment_id"), c.req.query("since_offset"), deps),
    }),
  );
  return router;
}

/**
 * The log of an environment for one client: everything since its last installation began, or after the
 * line with the offset `sinceOffset`, and then what comes.
 *
 * @throws AppError when there is no such environment or `sinceOffset` is no number
 */
export function serveLogs(
  peer: Peer,
  environmentId: string,
  sinceOffset: string | undefined,
  { store, environments }: Omit<LogSocketOptions, "sockets">,
): Channel {
  const environment = environments.find(peer.actor, environmentId);
  if (!environment) throw notFound("Environment");
  if (sinceOffset !== undefined && !/^\d{1,15}$/.test(sinceOffset)) {
    throw invalidField("since_offset", "Must be a whole number");
  }
  const after = sinceOffset === undefined ? store.beforeInstallation(environmentId) : Number(sinceOffset);
  const channel = new LogChannel(peer, environment, store, after);
  channel.start(environments);
  return channel;
}

class LogChannel implements Channel {
  readonly #peer: Peer;
  readonly #environment: SocketEnvironment;
  readonly #store: LogStore;
  readonly #end = new AbortController();
  /** Offset of the last line that was sent. */
  #position: number;
  /** What is to be said once the lines up to `after` have been sent. */
  readonly #notices: { after: number; say: () => void }[] = [];
  /** What has been said, or is about to be, of the end of the installation. */
  #outcome: "complete" | "error" | null = null;
  #outcomeTimer: Timer | undefined;
  /** Says it; null: it has been said. */
  #sayOutcome: (() => void) | null = null;
  /** Set while the client has to take what it was sent. */
  #goOn: (() => void) | null = null;
  #unwatch = () => {};

  constructor(peer: Peer, environment: SocketEnvironment, store: LogStore, after: number) {
    this.#peer = peer;
    this.#environment = environment;
    this.#store = store;
    this.#position = Math.min(after, store.lastSeq(environment.id));
  }

  start(environments: EnvironmentAccess): void {
    const { id, name } = this.#environment;
    this.#peer.send({
      type: "welcome",
      message: `Connected to ${name} logs`,
      environment_id: id,
      offset: this.#position,
    });
    this.#unwatch = environments.watch(id, (change) => this.#statusChanged(change));
    const status = { ...this.#environment, atMs: Date.now() };
    this.#peer.send(statusUpdate(id, status));
    this.#installationStatus(status);
    this.#noteOutcome(status);
    this.#closeWhenDeleted(status);
    void this.#sendLines();
  }

  message(): void {
    this.#peer.complain("Nothing but ping is expected here");
  }

  binary(): void {
    this.message();
  }

  drain(): void {
    if (this.#peer.unsentBytes <= UNSENT_LOW_BYTES) this.#goOn?.();
  }

  closed(): void {
    this.#end.abort();
    this.#unwatch();
    clearTimeout(this.#outcomeTimer);
    this.#goOn?.();
  }

  async #sendLines(): Promise<void> {
    const { signal } = this.#end;
    const options = { after: this.#position, signal };
    try {
      for await (const batch of follow(this.#store, this.#environment.id, options)) {
        for (const line of batch) this.#peer.sendText(frameOf(this.#environment.id, line));
        this.#position = batch.at(-1)?.seq ?? this.#position;
        await this.#room();
        if (signal.aborted) return;
        this.#sayNotices();
      }
    } catch (error) {
      this.#peer.fail(error);
    }
  }

  /** Resolves when the client may be sent more, at the earliest after everyone else has had a turn. */
  #room(): Promise<void> {
    return new Promise((resolve) => {
      if (this.#peer.unsentBytes <= UNSENT_HIGH_BYTES) {
        setImmediate(resolve);
        return;
      }
      this.#goOn = () => {
        this.#goOn = null;
        resolve();
      };
    });
  }

  #statusChanged(change: SocketStatusChange): void {
    // How an installation ended is told before what comes after it, however soon that is.
    if (outcomeOf(change) !== this.#outcome) this.#sayOutcome?.();
    this.#afterLines(() => {
      this.#peer.send(statusUpdate(this.#environment.id, change));
      this.#installationStatus(change);
    });
    this.#noteOutcome(change);
    this.#closeWhenDeleted(change);
  }

  #closeWhenDeleted({ status }: SocketStatusChange): void {
    if (status === "terminated") {
      this.#afterLines(() => this.#peer.close(CLOSE.normal, "Environment deleted"));
    }
  }

  #installationStatus({ status, message }: SocketStatusChange): void {
    if (status !== "installing" && status !== "configuring") return;
    this.#peer.send({
      type: "installation_status",
      environment_id: this.#environment.id,
      status,
      message: message ?? `Environment is ${status}`,
    });
  }

  /** Plans to say how the installation ended, once for each. */
  #noteOutcome(change: SocketStatusChange): void {
    const { status, message } = change;
    const outcome = outcomeOf(change);
    if (outcome === this.#outcome) return;
    this.#outcome = outcome;
    if (outcome === null) return;
    const environment_id = this.#environment.id;
    const said =
      outcome === "complete"
        ? { type: "installation_complete", environment_id, status }
        : { type: "installation_error", environment_id, error: message ?? "The installation failed" };
    this.#sayOutcome = () => {
      clearTimeout(this.#outcomeTimer);
      this.#sayOutcome = null;
      this.#afterLines(() => this.#peer.send(said));
    };
    this.#outcomeTimer = setTimeout(this.#sayOutcome, LINES_ARRIVE_MS);
  }

  /** Says something in its place: after the lines that are in the store now. */
  #afterLines(say: () => void): void {
    if (this.#notices.length >= MAX_NOTICES) this.#notices.shift();
    this.#notices.push({ after: this.#store.lastSeq(this.#environment.id), say });
    if (this.#goOn === null) this.#sayNotices();
  }

  #sayNotices(): void {
    for (;;) {
      const [next] = this.#notices;
      if (!next || next.after > this.#position || this.#end.signal.aborted) return;
      this.#notices.shift();
      next.say();
    }
  }
}

function outcomeOf({ status, installationCompleted }: SocketStatusChange): "complete" | "error" | null {
  if (status === "running" && installationCompleted) return "complete";
  return status === "error" && !installationCompleted ? "error" : null;
}

function frameOf(environmentId: string, line: StoredLine): string {
  const timestamp = new Date(line.atMs).toISOString();
  const { seq: offset, level, message, source } = line;
  return source === "container"
    ? JSON.stringify({
        type: "installation_log",
        environment_id: environmentId,
        data: `${message}\n`,
        timestamp,
        offset,
      })
    : JSON.stringify({ type: "log", timestamp, level, message, source, offset });
}
