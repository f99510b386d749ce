import type { EnvironmentStatus } from "../db/schema.ts";
import { type Environment, messageOf } from "./rows.ts";

/** One change of what an environment's owner sees of its life; published after the write is committed. */
export interface StatusChange {
  environmentId: string;
  userId: string;
  generation: number;
  status: EnvironmentStatus;
  /** What it was before; the same when only message or progress changed. */
  previous: EnvironmentStatus;
  /** How long it had been that. */
  lastedMs: number;
  message: string | null;
  /** 0–100. */
  progress: number;
  installationCompleted: boolean;
  atMs: number;
}

/** What is published when `before` has become `after`. */
export function changeOf(before: Environment, after: Environment, now: number): StatusChange {
  return {
    environmentId: after.id,
    userId: after.userId,
    generation: after.generation,
    status: after.status,
    previous: before.status,
    lastedMs: Math.max(0, now - before.statusSince),
    message: messageOf(after),
    progress: after.progress,
    installationCompleted: after.installationCompleted,
    atMs: now,
  };
}

type Listener = (change: StatusChange) => void;

/** Tells of status changes: to the waiting requests and sockets of one environment, or to whoever wants all. */
export class StatusFeed {
  readonly #byEnvironment = new Map<string, Set<Listener>>();
  readonly #all = new Set<Listener>();

  publish(change: StatusChange): void {
    for (const listener of this.#all) listener(change);
    for (const listener of this.#byEnvironment.get(change.environmentId) ?? []) listener(change);
  }

  /** Calls `listener` with each change of one environment; returns how to stop that. */
  watch(environmentId: string, listener: Listener): () => void {
    const listeners = this.#byEnvironment.get(environmentId) ?? new Set();
    this.#byEnvironment.set(environmentId, listeners.add(listener));
    return () => {
      listeners.delete(listener);
      if (listeners.size === 0) this.#byEnvironment.delete(environmentId);
    };
  }

  watchAll(listener: Listener): () => void {
    this.#all.add(listener);
    return () => this.#all.delete(listener);
  }
}
