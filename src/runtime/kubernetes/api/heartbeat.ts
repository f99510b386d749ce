/** Sent often enough for proxies that cut what is idle for a minute. */
export const PING_EVERY_MS = 25_000;

/** So many pings in a row may stay without an answer. */
const MOST_UNANSWERED = 2;

interface HeartbeatOptions {
  everyMs: number;
  /** What the next ping carries, and its pong brings back. */
  payload?(): string;
  /** There is a reason why nothing may come, other than that the peer is gone. */
  mayBeSilent(): boolean;
}

/**
 * Pings until `socket` is closed, and ends it when nothing at all comes back. A peer that has gone without a
 * word, or a network that has forgotten the connection, looks like one that has nothing to say.
 */
export function keepAlive(
  socket: WebSocket,
  { everyMs, payload = () => "", mayBeSilent }: HeartbeatOptions,
): void {
  let unanswered = 0;
  const heard = () => {
    unanswered = 0;
  };
  const timer = setInterval(() => {
    if (mayBeSilent()) unanswered = 0;
    else if (unanswered === MOST_UNANSWERED) return socket.terminate();
    unanswered++;
    socket.ping(payload());
  }, everyMs);
  socket.addEventListener("pong", heard);
  socket.addEventListener("message", heard);
  socket.addEventListener("close", () => clearInterval(timer));
}
