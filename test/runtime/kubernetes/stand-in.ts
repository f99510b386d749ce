import type { ServerWebSocket } from "bun";
import type { Connection } from "../../../src/runtime/kubernetes/api/connection.ts";
import type { ContainerStatus, Deployment, Pod } from "../../../src/runtime/kubernetes/api/objects.ts";
import { environmentPaths } from "../../../src/runtime/kubernetes/api/paths.ts";
import {
  CONTAINER,
  ENVIRONMENT_LABEL,
  GENERATION_ANNOTATION,
  USER_LABEL,
} from "../../../src/runtime/kubernetes/names.ts";
import type { EnvironmentRef } from "../../../src/runtime/runtime.ts";

interface Data {
  begin(stream: Stream): void;
}

export type Stream = ServerWebSocket<Data>;

interface Answers {
  /** A Response, JSON or a promise of one; undefined: nothing is there. */
  request?(url: URL, request: Request): object | undefined;
  /** How a stream goes on once it is open; a number refuses it with this status. */
  stream?(url: URL): ((stream: Stream) => void) | number;
}

/** An API server that fails when it is told to, as real ones do not. */
export class StandIn {
  readonly #server;
  /** Method and path of what was asked for, watches left out. */
  readonly asked: string[] = [];
  /** Of all streams. */
  pings = 0;

  constructor({ request: answer = () => undefined, stream = () => 404 }: Answers) {
    this.#server = Bun.serve<Data>({
      port: 0,
      idleTimeout: 0,
      hostname: "127.0.0.1",
      fetch: async (request, server) => {
        const url = new URL(request.url);
        const isWatch = url.searchParams.has("watch");
        if (!isWatch) this.asked.push(`${request.method} ${url.pathname}`);
        if (request.headers.has("Upgrade")) {
          const begin = stream(url);
          if (typeof begin === "number") return new Response(null, { status: begin });
          const protocol = request.headers.get("Sec-WebSocket-Protocol")?.split(",")[0] ?? "";
          const headers = { "Sec-WebSocket-Protocol": protocol };
          server.upgrade(request, { headers, data: { begin } });
          return undefined;
        }
        const found = await answer(url, request);
        if (found instanceof Response) return found;
        if (found) return Response.json(found);
        if (isWatch) return new Response(new ReadableStream());
        // Of the whole cluster's lists all are there, and empty.
        if (/^\/apis?\/[^/]+(\/v1)?\/[a-z]+$/.test(url.pathname)) return Response.json(listOf([]));
        return new Response(null, { status: 404 });
      },
      websocket: {
        backpressureLimit: 256 * 2 ** 20,
        open: (stream) => stream.data.begin(stream),
        message() {},
        ping: () => {
          this.pings++;
        },
      },
    });
  }

  get connection(): Connection {
    return connectionTo(this.#server.port);
  }

  close(): Promise<void> {
    return this.#server.stop(true);
  }
}

/** An exec whose command prints `text` and ends. */
export function printing(text: string, exitCode = 0): (stream: Stream) => void {
  const status =
    exitCode === 0
      ? { status: "Success" }
      : { status: "Failure", details: { causes: [{ reason: "ExitCode", message: String(exitCode) }] } };
  return (stream) => {
    stream.send(Buffer.from(`\x01${text}`));
    stream.send(Buffer.from(`\x03${JSON.stringify(status)}`));
  };
}

/** An API server whose streams open, and from which nothing ever comes then. */
export class SilentStandIn {
  readonly #listener;
  /** From all of its clients, once their streams were open. */
  receivedBytes = 0;

  constructor() {
    this.#listener = Bun.listen<{ isOpen: boolean }>({
      port: 0,
      hostname: "127.0.0.1",
      socket: {
        open(socket) {
          socket.data = { isOpen: false };
        },
        data: (socket, bytes) => {
          if (socket.data.isOpen) this.receivedBytes += bytes.length;
          else socket.write(handshake(Buffer.from(bytes).toString()));
          socket.data.isOpen = true;
        },
      },
    });
  }

  get connection(): Connection {
    return connectionTo(this.#listener.port);
  }

  close(): void {
    this.#listener.stop(true);
  }
}

/** RFC 6455, section 4.2.2. */
function handshake(request: string): string {
  const key = /^Sec-WebSocket-Key: (.*)\r$/im.exec(request)?.[1];
  const protocol = /^Sec-WebSocket-Protocol: ([^,\r]*)/im.exec(request)?.[1];
  const accept = new Bun.CryptoHasher("sha1").update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`);
  return [
    "HTTP/1.1 101 Switching Protocols",
    "Connection: Upgrade",
    "Upgrade: websocket",
    `Sec-WebSocket-Accept: ${accept.digest("base64")}`,
    `Sec-WebSocket-Protocol: ${protocol}`,
    "\r\n",
  ].join("\r\n");
}

function connectionTo(port: number | undefined): Connection {
  return {
    server: `http://127.0.0.1:${port}`,
    credentials: async () => ({ headers: {}, tls: {} }),
  };
}

export function listOf(items: object[]): object {
  return { metadata: { resourceVersion: "1" }, items };
}

/** An environment's Deployment and pod, by their paths. */
export function objectsOf(
  ref: EnvironmentRef,
  container: Partial<ContainerStatus>,
  { replicas = 1, phase = "Running" } = {},
): Map<string, object> {
  const paths = environmentPaths(ref);
  const metadata = metadataOf(ref);
  const deployment: Deployment = {
    metadata: { ...metadata, name: "env", generation: 1 },
    spec: { replicas, template: { metadata, spec: { containers: [] } } },
  };
  return new Map<string, object>([
    [paths.deployment, deployment],
    [paths.pods, listOf([podOf(ref, container, phase)])],
  ]);
}

export function podOf(ref: EnvironmentRef, container: Partial<ContainerStatus>, phase: string): Pod {
  return {
    metadata: { ...metadataOf(ref), name: "env-1", namespace: "user", uid: "p1" },
    spec: { containers: [{ name: CONTAINER }] },
    status: {
      phase,
      containerStatuses: [{ name: CONTAINER, ready: true, restartCount: 0, ...container }],
    },
  };
}

function metadataOf(ref: EnvironmentRef) {
  return {
    labels: { [ENVIRONMENT_LABEL]: ref.environmentId, [USER_LABEL]: ref.userId },
    annotations: { [GENERATION_ANNOTATION]: "1" },
  };
}
