import { AppError } from "../errors.ts";
import { TERMINAL_LIMITS } from "./limits.ts";
import type { Session } from "./session.ts";

interface Starting {
  /** The session that it goes on for. */
  inPlaceOf: string | null;
  epoch: number;
  session: Promise<Session>;
}

/** The terminal sessions of one environment: how many there may be, and which goes on for which. */
export class Room {
  readonly sessions = new Map<string, Session>();
  /** Shells that are being started, by id. */
  readonly starting = new Map<string, Starting>();
  /** Shells of an earlier server, by id: several clients may come back to one at once. */
  readonly takingUp = new Map<string, Promise<Session | undefined>>();
  /** Counts the times that all sessions were ended: what was being started or taken up then is ended too. */
  epoch = 0;

  get isEmpty(): boolean {
    return this.sessions.size + this.starting.size + this.takingUp.size === 0;
  }

  /** Sessions whose shell runs, oldest first. */
  get running(): Session[] {
    return [...this.sessions.values()].filter((session) => session.exit === null);
  }

  /** The session that goes on for one that is gone, or is about to. */
  successorOf(sessionId: string): Session | Promise<Session> | undefined {
    const there = this.running.find(({ inPlaceOf }) => inPlaceOf === sessionId);
    if (there) return there;
    for (const { inPlaceOf, epoch, session } of this.starting.values()) {
      if (inPlaceOf === sessionId && epoch === this.epoch) return session;
    }
    return undefined;
  }

  /** @throws AppError when there could be no room for one more than are being started */
  checkRoom(): void {
    if (this.#excess(this.starting.size + 1) > this.#dispensable().length) throw tooMany();
  }

  /** Lets one session go where one more would be too many. @throws AppError when all are needed */
  makeRoom(): void {
    if (this.#excess(1) <= 0) return;
    const [least] = this.#dispensable();
    if (!least) throw tooMany();
    least.kill();
    this.sessions.delete(least.id);
  }

  endAll(): void {
    this.epoch += 1;
    for (const session of this.sessions.values()) session.kill();
    this.sessions.clear();
  }

  /** By how many there would be too many sessions with so many more. */
  #excess(more: number): number {
    return this.sessions.size + more - TERMINAL_LIMITS.sessionsPerEnvironment;
  }

  /** What may go for a new session: first those that have ended, then the ones that have been detached longest. */
  #dispensable(): Session[] {
    return [...this.sessions.values()]
      .filter((session) => session.attached === 0 && session.detachedAt !== null)
      .sort((a, b) => rank(a) - rank(b));
  }
}

function rank(session: Session): number {
  return session.exit !== null ? Number.NEGATIVE_INFINITY : (session.detachedAt ?? 0);
}

function tooMany(): AppError {
  const most = TERMINAL_LIMITS.sessionsPerEnvironment;
  return new AppError("conflict", `No more than ${most} terminals can be open in an environment`);
}
