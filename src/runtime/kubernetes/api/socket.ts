import { RuntimeUnreachable } from "../../runtime.ts";
import type { Connection } from "./connection.ts";
import { statusError, unreachable } from "./errors.ts";

const OPEN_TIMEOUT_MS = 15_000;

/** Query parameters in order; names may repeat. */
export type SocketQuery = [name: string, value: string][];

/**
 * An open WebSocket to a path of the API server, paused: nothing is lost while the caller sets its
 * handlers, and `resume` lets it go.
 *
 * Streams that last (logs, exec) are WebSockets rather than fetches, of which Bun lets 256 run at a time
 * and leaves all others waiting.
 *
 * @throws KubeStatusError with the refusal's code (its body is not to be had), RuntimeUnreachable
 */
export async function openSocket(
  connection: Connection,
  path: string,
  query: SocketQuery,
  protocols: string[],
): Promise<WebSocket> {
  const url = new URL(connection.server + path);
  url.protocol = url.protocol === "http:" ? "ws:" : "wss:";
  for (const [name, value] of query) url.searchParams.append(name, value);
  const { headers, tls } = await connection.credentials();
  const socket = new WebSocket(url.href, { headers, protocols, tls, perMessageDeflate: false });
  socket.binaryType = "arraybuffer";
  await opened(socket);
  return socket;
}

function opened(socket: WebSocket): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      settle();
      socket.close();
      reject(new RuntimeUnreachable("The cluster can't be reached: no answer in time"));
    }, OPEN_TIMEOUT_MS);
    const settle = () => {
      clearTimeout(timer);
      socket.onopen = socket.onerror = socket.onclose = null;
    };
    socket.onopen = () => {
      settle();
      socket.pause();
      resolve();
    };
    const failed = (event: Event) => {
      settle();
      reject(refusal("message" in event ? String(event.message) : ""));
    };
    socket.onerror = failed;
    socket.onclose = failed;
  });
}

/** Bun tells of a refused upgrade in the error's text alone. */
function refusal(message: string): Error {
  const code = /Expected 101 status code: (\d+)/.exec(message)?.[1];
  return code ? statusError(Number(code), "") : unreachable(new Error(message));
}
