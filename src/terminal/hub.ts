import { notFound } from "../errors.ts";
import { newId } from "../lib/ids.ts";
import {
  type HeldTerminal,
  type Pty,
  RuntimeRejected,
  type TerminalOptions,
  type TerminalSize,
} from "../runtime/runtime.ts";
import { type Attachment, startOf, type Viewer } from "./attachment.ts";
import { TERMINAL_LIMITS } from "./limits.ts";
import { Room } from "./room.ts";
import { Session, type SessionOptions } from "./session.ts";

export interface HubOptions {
  /** A shell in a running environment. */
  open(environmentId: string, options: TerminalOptions): Promise<Pty>;
  /** Ids of shells that an earlier server has left running in an environment. */
  held?(environmentId: string): Promise<string[]>;
  /** Ids of the environments in which such shells may be. */
  running?(): string[];
  /** One of them; null: it is gone. */
  takeUp?(environmentId: string, sessionId: string): Promise<HeldTerminal | null>;
  /** Someone typed in an environment or something was printed; at most once a second for each session. */
  onActivity?(environmentId: string): void;
  /** For metrics. */
  onBytes?(direction: "input" | "output", bytes: number): void;
  /** A clock that nobody sets, in milliseconds. */
  now?: () => number;
}

export interface AttachRequest {
  /**
   * The session to take up again or to join. When it is gone, so is the one that has begun in its place: who shared
   * one goes on together. Without it a new one begins.
   */
  sessionId: string | null;
  /** It has ended with what it ran in: nothing of it is looked for. */
  isGone?: boolean;
  /** Offset of the first byte the client has not seen; null: all that there is. */
  offset: number | null;
  clientId: string;
  /** Where the count of its input begins in a session that does not know it; default: at 0. */
  inputFrom?(): number;
  size: TerminalSize | null;
  /** Can't type, and never begins a session. */
  readOnly: boolean;
  text: boolean;
  acknowledges: boolean;
  viewer: Viewer;
}

export interface Attached {
  session: Session;
  attachment: Attachment;
  /** Whether it is the session that was asked for. */
  resumed: boolean;
  /** For a client that begins in the middle: what sets its terminal right before the first byte. */
  restore: string | null;
}

export interface SessionInfo {
  id: string;
  /** As the shell or a program has set it; else null. */
  title: string | null;
  /** What runs in the foreground; null: nothing but the shell, or not known. */
  command: string | null;
  size: TerminalSize;
  attached: number;
  /** Milliseconds since the epoch. */
  createdAt: number;
}

const DEFAULT_SIZE: TerminalSize = { cols: 80, rows: 24 };

/** All terminal sessions, by environment. */
export class TerminalHub {
  readonly #options: HubOptions;
  readonly #now: () => number;
  readonly #rooms = new Map<string, Room>();
  /** Environments whose held shells are known, or are being learned of. */
  readonly #known = new Map<string, Promise<void>>();
  /** A sweep's looking for shells that are not known. */
  #looking: Promise<void> | null = null;
  #timer: Timer | undefined;
  #isClosed = false;

  constructor(options: HubOptions) {
    this.#options = options;
    this.#now = options.now ?? performance.now.bind(performance);
  }

  /** Begins to look for sessions that nobody needs any more. */
  start(): void {
    // What can't be asked now is asked again a minute later.
    this.#timer ??= setInterval(() => void this.sweep().catch(() => undefined), TERMINAL_LIMITS.idleCheckMs);
    this.#timer.unref();
  }

  /** How many shells run. */
  get size(): number {
    let size = 0;
    for (const room of this.#rooms.values()) size += room.running.length;
    return size;
  }

  /**
   * Takes up a session or begins one. Output is given from `attachment.start()` on.
   *
   * @throws AppError when there are too many, or for a viewer whose session is gone; what `open` throws
   */
  async attach(environmentId: string, request: AttachRequest): Promise<Attached> {
    const { sessionId, isGone = false } = request;
    const there = sessionId === null || isGone ? undefined : await this.#find(environmentId, sessionId);
    const found = there && hasMore(there, request.offset) ? there : undefined;
    const session = found ?? (await this.#goOn(environmentId, request));
    await session.inputSettled(request.clientId);
    const start = startOf(session.ring, request.text);
    const seenTo = found ? request.offset : null;
    return {
      session,
      attachment: session.attach({ ...request, offset: seenTo ?? start }),
      resumed: found !== undefined,
      restore: seenTo === null && start > 0 ? session.screen.restoreAt(start) : null,
    };
  }

  /** What there is instead of the session that was asked for, or begins. */
  #goOn(environmentId: string, { sessionId, size, readOnly }: AttachRequest): Session | Promise<Session> {
    const room = this.#rooms.get(environmentId);
    const successor = sessionId === null ? undefined : room?.successorOf(sessionId);
    if (successor) return successor;
    if (readOnly) throw notFound("Terminal session");
    return this.#begin(environmentId, { size: size ?? DEFAULT_SIZE, inPlaceOf: sessionId });
  }

  /** Sessions whose shell runs, newest first. */
  async list(environmentId: string): Promise<SessionInfo[]> {
    // A cluster that can't be asked now is no reason to show nothing.
    await this.#learn(environmentId).catch(() => undefined);
    const room = this.#rooms.get(environmentId);
    const sessions = (room?.running ?? []).reverse().sort((a, b) => b.createdAt - a.createdAt);
    return await Promise.all(
      sessions.map(async (session) => ({
        id: session.id,
        title: session.screen.title,
        command: (await session.jobs().catch(() => null))?.foreground ?? null,
        size: session.size,
        attached: session.attached,
        createdAt: session.createdAt,
      })),
    );
  }

  /** Ends one session and what runs in it. @throws AppError when there is none; what `takeUp` throws */
  async end(environmentId: string, sessionId: string): Promise<void> {
    const session = await this.#find(environmentId, sessionId);
    if (!session || session.exit !== null) throw notFound("Terminal session");
    session.kill();
  }

  /** Ends all sessions of an environment: it stops, or is no more. */
  endAll(environmentId: string): void {
    this.#known.delete(environmentId);
    const room = this.#rooms.get(environmentId);
    if (!room) return;
    room.endAll();
    this.#forgetEmpty(environmentId, room);
  }

  /** The server stops: lets go of shells that can run on without it, and ends all others. */
  close(): void {
    this.#isClosed = true;
    clearInterval(this.#timer);
    for (const room of this.#rooms.values()) for (const session of room.sessions.values()) session.release();
    for (const environmentId of [...this.#rooms.keys()]) this.endAll(environmentId);
  }

  /** Ends what nobody looks at and nothing runs in, whichever server has begun it; called by the timer. */
  async sweep(): Promise<void> {
    const now = this.#now();
    for (const [environmentId, room] of [...this.#rooms]) {
      for (const session of [...room.sessions.values()]) {
        if (session.detachedAt === null) continue;
        const detachedMs = now - session.detachedAt;
        if (session.exit !== null) {
          if (session.attached === 0 && detachedMs >= TERMINAL_LIMITS.farewellMs)
            room.sessions.delete(session.id);
        } else if (detachedMs >= TERMINAL_LIMITS.idleGraceMs && (await isIdle(session))) session.kill();
      }
      this.#forgetEmpty(environmentId, room);
    }
    this.#looking ??= this.#lookAtAll().finally(() => {
      this.#looking = null;
    });
    await this.#looking;
  }

  /** One after the other: after a restart that is all that there are. */
  async #lookAtAll(): Promise<void> {
    for (const environmentId of this.#options.running?.() ?? []) {
      if (this.#isClosed) return;
      await this.#learn(environmentId).catch(() => undefined);
    }
  }

  async #begin(
    environmentId: string,
    { size, inPlaceOf }: { size: TerminalSize; inPlaceOf: string | null },
  ): Promise<Session> {
    // Those that an earlier server has left count too, but nobody has to wait for that.
    void this.#learn(environmentId).catch(() => undefined);
    const room = this.#room(environmentId);
    const { epoch } = room;
    room.checkRoom();
    const session = this.#session(environmentId, { id: newId(), size, inPlaceOf });
    const starting = this.#start(environmentId, session, room);
    room.starting.set(session.id, { inPlaceOf, epoch, session: starting });
    try {
      return await starting;
    } finally {
      room.starting.delete(session.id);
      this.#forgetEmpty(environmentId, room);
    }
  }

  async #start(environmentId: string, session: Session, room: Room): Promise<Session> {
    const { epoch } = room;
    await session.start((options) => this.#options.open(environmentId, options));
    try {
      if (this.#isOver(room, epoch)) throw ended();
      // Not before it runs: for one that can't be opened no other has to go.
      room.makeRoom();
    } catch (error) {
      session.kill();
      throw error;
    }
    room.sessions.set(session.id, session);
    return session;
  }

  /** A session that is known, or that an earlier server, or an earlier way to it, has left. */
  async #find(environmentId: string, sessionId: string): Promise<Session | undefined> {
    const known = this.#rooms.get(environmentId)?.sessions.get(sessionId);
    if (known && !known.isLost) return known;
    // The others are learned of too, but nobody has to wait for them.
    void this.#learn(environmentId).catch(() => undefined);
    return (await this.#takeUp(environmentId, sessionId)) ?? known;
  }

  /** Takes up, once, what runs of an environment's shells. */
  #learn(environmentId: string): Promise<void> {
    const learning =
      this.#known.get(environmentId) ??
      this.#takeUpAll(environmentId).catch((error: unknown) => {
        this.#known.delete(environmentId);
        throw error;
      });
    this.#known.set(environmentId, learning);
    return learning;
  }

  async #takeUpAll(environmentId: string): Promise<void> {
    const ids = (await this.#options.held?.(environmentId)) ?? [];
    const takenUp = await Promise.allSettled(ids.map((id) => this.#takeUp(environmentId, id)));
    // What could not be is tried again by whoever asks next.
    for (const result of takenUp) if (result.status === "rejected") throw result.reason;
  }

  #takeUp(environmentId: string, id: string): Promise<Session | undefined> {
    const room = this.#room(environmentId);
    const known = room.sessions.get(id);
    if (room.starting.has(id) || (known && !known.isLost)) return Promise.resolve(known);
    const taking =
      room.takingUp.get(id) ??
      this.#resume(environmentId, room, id).finally(() => {
        room.takingUp.delete(id);
        this.#forgetEmpty(environmentId, room);
      });
    room.takingUp.set(id, taking);
    return taking;
  }

  async #resume(environmentId: string, room: Room, id: string): Promise<Session | undefined> {
    const { epoch } = room;
    const held = await this.#options.takeUp?.(environmentId, id);
    if (!held) return undefined;
    if (this.#isOver(room, epoch)) {
      held.release();
      throw ended();
    }
    const session = this.#session(environmentId, { id, size: held.size, held });
    await session.resume(held);
    if (this.#isOver(room, epoch)) {
      if (this.#isClosed) session.release();
      else session.kill();
      throw ended();
    }
    room.sessions.set(id, session);
    return session;
  }

  #session(environmentId: string, of: Pick<SessionOptions, "id" | "size" | "inPlaceOf" | "held">): Session {
    return new Session({
      ...of,
      environmentId,
      now: this.#now,
      onActivity: () => this.#options.onActivity?.(environmentId),
      onBytes: (direction, bytes) => this.#options.onBytes?.(direction, bytes),
      onLost: () => void this.#known.delete(environmentId),
    });
  }

  /** Since `epoch` the environment has stopped, or the server stops. */
  #isOver(room: Room, epoch: number): boolean {
    return this.#isClosed || room.epoch !== epoch;
  }

  #room(environmentId: string): Room {
    const room = this.#rooms.get(environmentId) ?? new Room();
    this.#rooms.set(environmentId, room);
    return room;
  }

  #forgetEmpty(environmentId: string, room: Room): void {
    if (room.isEmpty) this.#rooms.delete(environmentId);
  }
}

/** Not for good: where the environment restarts, whoever waits gets the next shell. */
function ended(): RuntimeRejected {
  return new RuntimeRejected("rejected", "The environment has stopped");
}

/** A lost shell is of use only to who has not seen all that it had printed. */
function hasMore(session: Session, offset: number | null): boolean {
  return !session.isLost || offset === null || offset < session.ring.end;
}

/** Where it can't be known whether something runs in it, a session is kept. */
async function isIdle(session: Session): Promise<boolean> {
  const jobs = await session.jobs().catch(() => null);
  return jobs?.count === 0 && session.detachedAt !== null;
}
