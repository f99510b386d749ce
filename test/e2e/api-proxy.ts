import { readFileSync } from "node:fs";
import type { Socket } from "bun";
import { KUBECONFIG } from "./cluster.ts";

interface Side {
  peer: Socket<Side> | null;
  waiting: Uint8Array[];
}

/** What a connection to the API server meets on its way. */
export type Weather = "fair" | "refused" | "silent";

/**
 * A way to the cluster's API server that can be closed for one server alone: the cluster and whoever else
 * uses it notice nothing.
 */
export class ApiProxy {
  readonly #listener: Bun.TCPSocketListener<Side>;
  readonly #clients = new Set<Socket<Side>>();
  #weather: Weather = "fair";
  /** How many connections were refused. */
  refusals = 0;

  /** @param at where it listens; default: any free port */
  constructor(at = { hostname: "127.0.0.1", port: 0 }) {
    const target = new URL(serverOf(readFileSync(KUBECONFIG, "utf8")));
    const handlers = {
      data: (socket: Socket<Side>, bytes: Uint8Array) => this.#pass(socket, bytes),
      drain: (socket: Socket<Side>) => flush(socket),
      close: (socket: Socket<Side>) => {
        this.#clients.delete(socket);
        socket.data.peer?.end();
      },
      error: () => {},
    };
    this.#listener = Bun.listen<Side>({
      ...at,
      socket: {
        ...handlers,
        open: async (client) => {
          client.data = { peer: null, waiting: [] };
          if (this.#weather === "refused") {
            this.refusals += 1;
            return void client.terminate();
          }
          this.#clients.add(client);
          client.pause();
          const server = await Bun.connect<Side>({
            hostname: target.hostname,
            port: Number(target.port),
            data: { peer: client, waiting: [] },
            socket: handlers,
          }).catch(() => null);
          if (!server) return void client.terminate();
          client.data.peer = server;
          client.resume();
        },
      },
    });
  }

  /** The cluster's kubeconfig with this proxy for a server. */
  get kubeconfig(): string {
    const original = readFileSync(KUBECONFIG, "utf8");
    return original.replace(serverOf(original), `https://127.0.0.1:${this.#listener.port}`);
  }

  /** `refused` ends what is open too; `silent` leaves it open, and nothing comes through any more. */
  become(weather: Weather): void {
    this.#weather = weather;
    if (weather === "refused") this.cut();
    if (weather !== "fair") return;
    // What waited in silence is lost, as in a network that forgets.
    this.cut();
  }

  /** Ends every open connection. */
  cut(): void {
    for (const client of this.#clients) {
      client.data.peer?.terminate();
      client.terminate();
    }
    this.#clients.clear();
  }

  close(): void {
    this.cut();
    this.#listener.stop(true);
  }

  #pass(from: Socket<Side>, bytes: Uint8Array): void {
    const to = from.data.peer;
    if (!to || this.#weather === "silent") return;
    to.data.waiting.push(new Uint8Array(bytes));
    flush(to);
    if (to.data.waiting.length > 0) from.pause();
  }
}

function flush(to: Socket<Side>): void {
  for (let first = to.data.waiting[0]; first; first = to.data.waiting[0]) {
    const written = to.write(first);
    if (written < first.length) {
      to.data.waiting[0] = first.subarray(Math.max(0, written));
      return;
    }
    to.data.waiting.shift();
  }
  to.data.peer?.resume();
}

function serverOf(kubeconfig: string): string {
  const server = /server: (\S+)/.exec(kubeconfig)?.[1];
  if (!server) throw new Error("KUBECONFIG names no server");
  return server;
}
