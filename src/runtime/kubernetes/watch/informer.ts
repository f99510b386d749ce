import { backoffMs } from "../../../lib/backoff.ts";
import type { Logger } from "../../../lib/logger.ts";
import { pause } from "../../../lib/pause.ts";
import { RuntimeUnreachable } from "../../runtime.ts";
import type { KubeClient, Query, WatchError } from "../api/client.ts";
import { isStatus, KubeStatusError } from "../api/errors.ts";
import type { KubeObject } from "../api/objects.ts";

export interface InformerLimits {
  /** A watch is ended after this time and its half again at most. */
  watchSeconds: number;
  /** Bookmarks come every minute: a watch that has been silent for longer has stalled. */
  silenceMs: number;
  /** A watch that ends sooner has failed, however it ended. */
  healthyMs: number;
  /** At the end of a watch everything is listed anew when the last list is older than this. */
  relistMs: number;
  backoff: { baseMs: number; maxMs: number };
}

export const INFORMER_LIMITS: InformerLimits = {
  watchSeconds: 200,
  silenceMs: 100_000,
  healthyMs: 1_000,
  relistMs: 180_000,
  backoff: { baseMs: 200, maxMs: 15_000 },
};

export interface InformerHandlers<T> {
  /** All there is; what was known before and is not in it is gone. */
  replaced(items: T[]): void;
  changed(object: T): void;
  gone(object: T): void;
}

export interface Informer {
  /** Whether a list has come through. */
  readonly synced: boolean;
}

interface InformerOptions {
  client: KubeClient;
  path: string;
  query: Query;
  log: Logger;
  signal: AbortSignal;
  limits?: InformerLimits;
}

/**
 * Lists a collection, then watches it from there, until `signal` aborts. A watch that breaks is taken up
 * where it was; a position that the server has forgotten (410) begins with a new list.
 */
export function startInformer<T extends KubeObject>(
  { client, path, query, log, signal, limits = INFORMER_LIMITS }: InformerOptions,
  handlers: InformerHandlers<T>,
): Informer {
  const state = { synced: false };
  let position: string | undefined;
  let listedAt = 0;
  let failures = 0;

  async function list(): Promise<void> {
    const all = await client.list<T>(path, query, signal);
    handlers.replaced(all.items);
    position = all.metadata.resourceVersion;
    listedAt = performance.now();
    state.synced = true;
  }

  async function watch(): Promise<void> {
    const timeoutSeconds = Math.round(limits.watchSeconds * (1 + Math.random() / 2));
    const stalled = new AbortController();
    let timer = setTimeout(() => stalled.abort(), limits.silenceMs);
    const begunAt = performance.now();
    // Neither a list nor an event says that watches last: by them alone it would go round without a pause.
    const hasLasted = () => performance.now() - begunAt >= limits.healthyMs;
    const watching = { ...query, resourceVersion: position, timeoutSeconds };
    try {
      for await (const event of client.watch<T>(path, watching, AbortSignal.any([signal, stalled.signal]))) {
        clearTimeout(timer);
        timer = setTimeout(() => stalled.abort(), limits.silenceMs);
        if (hasLasted()) failures = 0;
        if (event.type === "ERROR") {
          // What kind of error it was does not matter: a new list is right after all of them.
          position = undefined;
          throw watchError(event.object);
        }
        position = event.object.metadata.resourceVersion ?? position;
        if (event.type === "DELETED") handlers.gone(event.object);
        else if (event.type !== "BOOKMARK") handlers.changed(event.object);
      }
      if (!hasLasted()) throw new RuntimeUnreachable("The cluster can't be reached: a watch ended at once");
      failures = 0;
    } finally {
      clearTimeout(timer);
    }
  }

  async function run(): Promise<void> {
    while (!signal.aborted) {
      try {
        if (position === undefined || performance.now() - listedAt > limits.relistMs) await list();
        await watch();
      } catch (error) {
        if (signal.aborted) return;
        if (isStatus(error, 410)) position = undefined;
        failures++;
        log.debug("a watch broke", { path, failures, error });
        await pause(backoffMs(limits.backoff, failures), signal);
      }
    }
  }

  void run();
  return state;
}

function watchError({ code = 500, reason = "", message = "" }: WatchError): KubeStatusError {
  return new KubeStatusError({ code, reason, message, causes: [] });
}
