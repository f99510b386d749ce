import { AppError } from "../errors.ts";
import { createBell } from "../lib/bell.ts";
import type { StoredLine } from "../logs/chunk.ts";

/** An idle stream says so this often: proxies cut what is silent, commonly after a minute. */
const HEARTBEAT_MS = 15_000;
const STREAMS_PER_USER = 10;

interface Owner {
  userId: string;
  sessionId: string;
}

interface LogStreamsOptions {
  perUser?: number;
  /** Whether a sign-in session lives; another process, such as the command line's, may have ended it. */
  sessionLives?(sessionId: string): boolean;
}

/** The log streams that are open, so that they end with their sign-in session. */
export function createLogStreams({
  perUser = STREAMS_PER_USER,
  sessionLives = () => true,
}: LogStreamsOptions = {}) {
  const open = new Map<AbortController, Owner>();

  return {
    /**
     * Enters a stream: it is to end when `end` aborts, and then to abort it itself if nobody else has.
     *
     * @throws AppError when the user has too many
     */
    enter({ userId, sessionId }: Owner): AbortController {
      const others = [...open.values()].filter((owner) => owner.userId === userId);
      if (others.length >= perUser) throw new AppError("rate_limited", "Too many log streams are open");
      const end = new AbortController();
      open.set(end, { userId, sessionId });
      end.signal.addEventListener("abort", () => open.delete(end));
      return end;
    },

    /** A sign-in session has ended: so do its streams. */
    endSession(sessionId: string): void {
      for (const [end, owner] of [...open]) if (owner.sessionId === sessionId) end.abort();
    },

    sessionLives,

    get size(): number {
      return open.size;
    },
  };
}

export type LogStreams = ReturnType<typeof createLogStreams>;

/** An event of a stream: the text after `event: log`. */
type Render = (line: StoredLine) => string;

/**
 * Server-sent events of `batches`, with comments while there is nothing to say. Each pull of the client
 * reads one batch: what a slow client has not taken is not read yet either.
 *
 * @param end aborted by whoever ends the stream: the client, the session, the server; `batches` end with it
 * @param isSignedIn asked before each event and comment; the stream ends with the first that may not go out
 */
export function eventStream(
  batches: AsyncGenerator<StoredLine[], void, void>,
  render: Render,
  end: AbortController,
  isSignedIn: () => boolean,
  heartbeatMs: number = HEARTBEAT_MS,
): ReadableStream<Uint8Array> {
  const encoder = new TextEncoder();
  let next: ReturnType<typeof batches.next> | undefined;
  let isThere = false;
  const bell = createBell();
  let begun = false;
  // A batch that nobody will ask for leaves the generator where it is, with all that it holds.
  end.signal.addEventListener("abort", () => void batches.return().catch(() => {}));

  async function nextText(): Promise<string | undefined> {
    if (!begun) {
      begun = true;
      // The headers go out with the first bytes, and a client that loses the stream comes back in a second.
      return "retry: 1000\n\n";
    }
    next ??= begin();
    await bell.wait(heartbeatMs, end.signal);
    if (end.signal.aborted || !isSignedIn()) return undefined;
    if (!isThere) return ":\n\n";
    const result = await next;
    next = undefined;
    if (result.done) return undefined;
    return result.value.map((line) => `event: log\nid: ${line.seq}\ndata: ${render(line)}\n\n`).join("");
  }

  /** Of a batch its coming is waited for once, however many comments go out meanwhile: each wait would stay with it. */
  function begin(): ReturnType<typeof batches.next> {
    isThere = false;
    const batch = batches.next();
    const came = () => {
      isThere = true;
      bell.ring();
    };
    batch.then(came, came);
    return batch;
  }

  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        try {
          const text = await nextText();
          if (text !== undefined) return controller.enqueue(encoder.encode(text));
        } catch (error) {
          end.abort();
          throw error;
        }
        end.abort();
        controller.close();
      },
      cancel() {
        end.abort();
      },
    },
    { highWaterMark: 0 },
  );
}
