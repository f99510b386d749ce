import { createHash, randomBytes } from "node:crypto";
import { AppError } from "../errors.ts";
import type { Actor } from "../http/context.ts";
import { SOCKET_LIMITS } from "./limits.ts";

interface Ticket {
  actor: Actor;
  expiresAt: number;
}

interface TicketsOptions {
  /** A clock that nobody sets, in milliseconds. */
  now?: () => number;
  ttlMs?: number;
  max?: number;
}

/**
 * Tickets let a browser open a WebSocket without its access token in the URL: each is good for one
 * connection within `ttlMs`. Only hashes are kept, in memory: a restart of the server ends them all.
 */
export class Tickets {
  readonly ttlMs: number;
  readonly #now: () => number;
  readonly #max: number;
  /** By SHA-256 of the ticket; all live equally long, so the order of insertion is that of expiry. */
  readonly #tickets = new Map<string, Ticket>();

  constructor({
    now = performance.now.bind(performance),
    ttlMs = SOCKET_LIMITS.ticketMs,
    max = SOCKET_LIMITS.tickets,
  }: TicketsOptions = {}) {
    this.#now = now;
    this.ttlMs = ttlMs;
    this.#max = max;
  }

  issue(actor: Actor): string {
    this.#dropExpired();
    if (this.#tickets.size >= this.#max) throw new AppError("unavailable", "Too many tickets are open");
    const ticket = randomBytes(32).toString("base64url");
    this.#tickets.set(hash(ticket), { actor, expiresAt: this.#now() + this.ttlMs });
    return ticket;
  }

  /** Who the ticket was issued to. It is used up by this. */
  redeem(ticket: string): Actor {
    const key = hash(ticket);
    const found = this.#tickets.get(key);
    this.#tickets.delete(key);
    if (!found || found.expiresAt <= this.#now()) {
      throw new AppError("unauthenticated", "Ticket invalid, used or expired");
    }
    return found.actor;
  }

  /** A sign-in session has ended: so have its tickets. */
  revokeSession(sessionId: string): void {
    for (const [key, { actor }] of this.#tickets) {
      if (actor.sessionId === sessionId) this.#tickets.delete(key);
    }
  }

  #dropExpired(): void {
    for (const [key, { expiresAt }] of this.#tickets) {
      if (expiresAt > this.#now()) return;
      this.#tickets.delete(key);
    }
  }
}

function hash(ticket: string): string {
  return createHash("sha256").update(ticket).digest("base64url");
}
