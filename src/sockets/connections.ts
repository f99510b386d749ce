import { AppError } from "../errors.ts";
import { networkOf } from "../http/origin.ts";
import { CLOSE, type CloseCode, RESUMED_ELSEWHERE } from "./close.ts";
import { SOCKET_LIMITS } from "./limits.ts";

/** What the list of connections needs to know of one. */
export interface Member {
  readonly ip: string;
  /** Whether its request says who is there: that is known in a moment, or it is turned away. */
  readonly hasCredential: boolean;
  /** Null until it is known who is there. */
  readonly actor: { userId: string; sessionId: string } | null;
  /** What it is of its user's: none but the same client comes back to the same place. Null: nothing that is known. */
  readonly place: string | null;
  /** When anything last came from the client, by `Connections.now`. */
  readonly lastHeardAt: number;
  ping(): void;
  end(code: CloseCode, reason: string): void;
  /** Ends it because of `error`, of which it is told first. */
  fail(error: AppError): void;
  /** Ends it without a word: nobody is there to hear it. */
  terminate(): void;
}

interface ConnectionsOptions {
  perUser: number;
  /** Whether a sign-in session lives; another process, such as the command line's, may have ended it. */
  sessionLives?(sessionId: string): boolean;
  /** Told when that can't be asked; the session counts as one that lives. */
  failed?(error: unknown): void;
  /** A clock that nobody sets, in milliseconds: a step of the other would end everything at once. */
  now?: () => number;
}

/** All open WebSockets: how many there may be, which still live, and which end with what. */
export class Connections {
  readonly #perUser: number;
  readonly #sessionLives: (sessionId: string) => boolean;
  readonly #failed: (error: unknown) => void;
  readonly now: () => number;
  /** With the time of the last ping. */
  readonly #members = new Map<Member, { pingedAt: number }>();
  readonly #byUser = new Map<string, Set<Member>>();
  /** Those that are yet to introduce themselves, each with its network. */
  readonly #anonymous = new Map<Member, string>();
  readonly #anonymousByNetwork = new Map<string, number>();
  #timer: Timer | undefined;
  #shutDown = false;

  constructor({
    perUser,
    sessionLives = () => true,
    failed = () => {},
    now = performance.now.bind(performance),
  }: ConnectionsOptions) {
    this.#perUser = perUser;
    this.#sessionLives = sessionLives;
    this.#failed = failed;
    this.now = now;
  }

  get size(): number {
    return this.#members.size;
  }

  start(): void {
    this.#timer ??= setInterval(() => this.sweep(), SOCKET_LIMITS.sweepEveryMs);
    this.#timer.unref();
  }

  /** Takes in a connection of whom nothing is known yet. @throws AppError when there are too many of those */
  enter(member: Member): void {
    if (this.#shutDown) throw new AppError("unavailable", "The server is shutting down");
    if (!member.hasCredential) this.#enterAnonymous(member);
    this.#members.set(member, { pingedAt: this.now() });
  }

  /**
   * `member` has turned out to be one of the user's; to be called before its `actor` is set.
   *
   * @throws AppError when the user has too many and none of them can make room
   */
  identify(member: Member, userId: string): void {
    const others = this.#byUser.get(userId) ?? new Set();
    if (others.size >= this.#perUser) this.#makeRoom(others, member.place);
    this.#forgetAnonymous(member);
    others.add(member);
    this.#byUser.set(userId, others);
  }

  /** The connection has ended. */
  leave(member: Member): void {
    if (!this.#members.delete(member)) return;
    this.#forgetAnonymous(member);
    if (member.actor === null) return;
    const others = this.#byUser.get(member.actor.userId);
    others?.delete(member);
    if (others?.size === 0) this.#byUser.delete(member.actor.userId);
  }

  /** A sign-in session has ended: so do its connections. */
  closeSession(sessionId: string): void {
    for (const member of [...this.#members.keys()]) {
      if (member.actor?.sessionId === sessionId) member.end(CLOSE.policy, "Session ended");
    }
  }

  /** Closes everything with 1001 and lets nobody in any more. */
  shutDown(): void {
    this.#shutDown = true;
    clearInterval(this.#timer);
    for (const member of [...this.#members.keys()]) member.end(CLOSE.goingAway, "Server is shutting down");
  }

  /** Pings what is due and ends what is dead or signed out; called by the timer. */
  sweep(): void {
    const now = this.now();
    /** Sessions that were looked up; those of one user's connections are mostly the same. */
    const seen = new Map<string, boolean>();
    const isSignedOut = ({ actor }: Member): boolean => {
      if (actor === null) return false;
      const lives = seen.get(actor.sessionId) ?? this.#lives(actor.sessionId);
      seen.set(actor.sessionId, lives);
      return !lives;
    };
    for (const [member, state] of [...this.#members]) {
      if (now - member.lastHeardAt >= SOCKET_LIMITS.silenceMs) {
        member.terminate();
      } else if (now - state.pingedAt >= SOCKET_LIMITS.pingAfterMs) {
        state.pingedAt = now;
        if (isSignedOut(member)) member.end(CLOSE.policy, "Session ended");
        else member.ping();
      }
    }
  }

  #lives(sessionId: string): boolean {
    try {
      return this.#sessionLives(sessionId);
    } catch (error) {
      this.#failed(error);
      return true;
    }
  }

  /**
   * A phone's dead sockets must not shut it out: the one goes that the same client had in this place, or else, of
   * those that leave a ping unanswered, the most silent.
   */
  #makeRoom(others: Set<Member>, place: string | null): void {
    for (const other of others) {
      if (place === null || other.place !== place) continue;
      other.end(CLOSE.normal, RESUMED_ELSEWHERE);
      return;
    }
    const tooMany = new AppError("rate_limited", "Too many connections");
    const latest = this.now() - SOCKET_LIMITS.displaceableAfterMs;
    let dead: Member | undefined;
    for (const other of others) {
      const { lastHeardAt } = other;
      const pingedAt = this.#members.get(other)?.pingedAt ?? lastHeardAt;
      if (lastHeardAt > latest || pingedAt <= lastHeardAt) continue;
      if (dead === undefined || lastHeardAt < dead.lastHeardAt) dead = other;
    }
    if (!dead) throw tooMany;
    dead.fail(tooMany);
  }

  /** However many an outsider leaves silent, who brings a credential gets in. */
  #enterAnonymous(member: Member): void {
    const network = networkOf(member.ip);
    const ofNetwork = this.#anonymousByNetwork.get(network) ?? 0;
    if (ofNetwork >= SOCKET_LIMITS.anonymousPerNetwork) {
      throw new AppError("rate_limited", "Too many connections");
    }
    if (this.#anonymous.size >= SOCKET_LIMITS.anonymous) {
      throw new AppError("unavailable", "Too many connections");
    }
    this.#anonymous.set(member, network);
    this.#anonymousByNetwork.set(network, ofNetwork + 1);
  }

  #forgetAnonymous(member: Member): void {
    const network = this.#anonymous.get(member);
    if (network === undefined) return;
    this.#anonymous.delete(member);
    const ofNetwork = (this.#anonymousByNetwork.get(network) ?? 1) - 1;
    if (ofNetwork > 0) this.#anonymousByNetwork.set(network, ofNetwork);
    else this.#anonymousByNetwork.delete(network);
  }
}
