import { type Backoff, backoffMs } from "../lib/backoff.ts";
import type { Logger } from "../lib/logger.ts";
import { pause } from "../lib/pause.ts";
import { Semaphore } from "../lib/semaphore.ts";
import { type EnvironmentRef, type LogLine, type Runtime, RuntimeUnreachable } from "../runtime/runtime.ts";
import { lineBytes } from "./chunk.ts";
import type { LogStore } from "./store.ts";

/** Lines are written together that come within this time, or this many bytes of them. */
const BATCH_MS = 50;
const BATCH_BYTES = 64 * 1024;

/**
 * Full batches are written at most this often, those of all environments together and in turn: 3 MiB/s. A
 * flood takes no more of the server than this, and a runtime that is read slowly holds it up at its source.
 */
const FULL_BATCH_EVERY_MS = 20;

const RETRY: Backoff = { baseMs: 500, maxMs: 30_000 };

export interface CollectorOptions<E extends EnvironmentRef> {
  store: LogStore;
  /** Asked again at every attempt: a cluster's connection may have been made anew. */
  runtimeOf(environment: E): Pick<Runtime, "logs">;
  log: Logger;
  retry?: Backoff;
}

interface Collection {
  stop: AbortController;
  /** Writes what has been read and waits for more. */
  flush(): void;
  /** Asked for since the last reading began: containers may have been replaced after its log had ended. */
  again: boolean;
  /** Ends a wait after failures: whoever asks for the log has just seen its containers. */
  hurry(): void;
  done: Promise<void>;
}

/** Copies what runtimes log into the store, one collection an environment. */
export function createLogCollector<E extends EnvironmentRef>({
  store,
  runtimeOf,
  log,
  retry = RETRY,
}: CollectorOptions<E>) {
  const collections = new Map<string, Collection>();
  const turns = new Semaphore(1);
  let closed = false;

  async function collect(environment: E, collection: Collection): Promise<void> {
    const { environmentId } = environment;
    const { signal } = collection.stop;
    let failures = 0;
    while (collection.again && !signal.aborted) {
      collection.again = false;
      const before = store.cursor(environmentId);
      try {
        await copy(runtimeOf(environment), environment, store, turns, collection);
        failures = 0;
      } catch (error) {
        if (signal.aborted) return;
        failures = store.cursor(environmentId) === before ? failures + 1 : 1;
        reportFailure(log, environmentId, error, failures);
        await standBack(collection, failures);
        collection.again = true;
      }
    }
  }

  /** The least delay in any case, the rest of it until the log is asked for: a cluster that was gone is back. */
  async function standBack(collection: Collection, failures: number): Promise<void> {
    const { signal } = collection.stop;
    const hurried = new AbortController();
    collection.hurry = () => hurried.abort();
    const delayMs = backoffMs(retry, failures);
    const leastMs = Math.min(delayMs, retry.baseMs);
    await pause(leastMs, signal);
    await pause(delayMs - leastMs, AbortSignal.any([signal, hurried.signal]));
  }

  async function run(environment: E, collection: Collection, previous?: Collection): Promise<void> {
    const { environmentId } = environment;
    try {
      await previous?.done;
      await collect(environment, collection);
    } catch (error) {
      log.error("collecting a log ended", { environment_id: environmentId, error });
    } finally {
      if (collections.get(environmentId) === collection) collections.delete(environmentId);
    }
  }

  return {
    /**
     * Begins to collect, or does nothing when that is going on. It ends with the containers. Safe to call
     * at every look at an environment that has some.
     */
    start(environment: E): void {
      if (closed) return;
      const current = collections.get(environment.environmentId);
      if (current && !current.stop.signal.aborted) {
        current.again = true;
        current.hurry();
        return;
      }
      const collection: Collection = {
        stop: new AbortController(),
        again: true,
        flush: () => {},
        hurry: () => {},
        done: Promise.resolve(),
      };
      collections.set(environment.environmentId, collection);
      collection.done = run(environment, collection, current);
    },

    /** Ends a collection; resolves when what it had read is written. */
    async stop(environmentId: string): Promise<void> {
      const collection = collections.get(environmentId);
      collection?.stop.abort();
      await collection?.done;
    },

    /** Writes what has been read of a log, so that what is written next comes after it. */
    flush(environmentId: string): void {
      collections.get(environmentId)?.flush();
    },

    /** How many environments are being collected from. */
    get active(): number {
      return collections.size;
    },

    /** Ends all collections and begins no more; resolves when what they had read is written. */
    async close(): Promise<void> {
      closed = true;
      for (const { stop } of collections.values()) stop.abort();
      await Promise.all([...collections.values()].map(({ done }) => done));
    },
  };
}

function reportFailure(log: Logger, environmentId: string, error: unknown, failures: number): void {
  const fields = { environment_id: environmentId, failures, error };
  if (error instanceof RuntimeUnreachable) log.debug("the runtime's log can't be read", fields);
  else log.error("collecting a log failed", fields);
}

/** Reads the runtime's log from where the store ends until it ends itself or is stopped. */
async function copy(
  runtime: Pick<Runtime, "logs">,
  environment: EnvironmentRef,
  store: LogStore,
  turns: Semaphore,
  collection: Collection,
): Promise<void> {
  const { environmentId, userId } = environment;
  const { signal } = collection.stop;
  const failed = new AbortController();
  const batch = createBatch((lines) => store.append(environmentId, lines), failed);
  collection.flush = batch.flushNow;
  const after = store.cursor(environmentId);
  const stream = runtime.logs(
    { environmentId, userId },
    { after, signal: AbortSignal.any([signal, failed.signal]) },
  );
  try {
    for await (const line of stream) {
      if (failed.signal.aborted) break;
      if (batch.add(line)) await turns.run(() => pause(FULL_BATCH_EVERY_MS, signal));
    }
  } finally {
    batch.flush();
  }
  failed.signal.throwIfAborted();
}

/**
 * Gathers lines and hands them on. When that fails on a timer, or by `flushNow`, `failed` is aborted with the
 * reason; what was gathered is let go, for it will be read again from the cursor that was written last.
 */
function createBatch(write: (lines: LogLine[]) => void, failed: AbortController) {
  let lines: LogLine[] = [];
  let bytes = 0;
  let timer: Timer | undefined;

  function flush(): void {
    clearTimeout(timer);
    timer = undefined;
    const full = lines;
    lines = [];
    bytes = 0;
    if (full.length > 0 && !failed.signal.aborted) write(full);
  }

  function flushNow(): void {
    try {
      flush();
    } catch (error) {
      failed.abort(error);
    }
  }

  return {
    /** Whether the batch was full and has been written. */
    add(line: LogLine): boolean {
      lines.push(line);
      bytes += lineBytes(line.message);
      if (bytes >= BATCH_BYTES) {
        flush();
        return true;
      }
      timer ??= setTimeout(flushNow, BATCH_MS);
      return false;
    },
    flush,
    flushNow,
  };
}
