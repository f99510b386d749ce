import type { ServerWebSocket } from "bun";
import type { Connection } from "../../../src/runtime/kubernetes/api/connection.ts";
import type { ExecTarget } from "../../../src/runtime/kubernetes/api/exec.ts";
import { HOLDER_SCRIPT, TERMINALS_FOLDER } from "../../../src/runtime/kubernetes/manifests/manifests.ts";
import { SYSTEM_PATH } from "../../../src/runtime/startup.ts";
import { HOLDER, holderFolder } from "./held-session.ts";
import { cutPipes, spawnBetweenPipes } from "./pipes.ts";

const [STDIN, STDOUT, STATUS] = [0, 1, 3];
const MOST_UNSENT_BYTES = 2 ** 20;

interface Exec {
  command: string[];
  process?: Bun.Subprocess<"pipe", "pipe", "ignore">;
  drained?: () => void;
}

/** As much of an API server as `exec` without a terminal needs; what it runs in is this machine. */
export class ExecServer {
  readonly target: ExecTarget = { namespace: "ns", pod: "pod", container: "main" };
  /** Where the container's holders are. */
  readonly folder = holderFolder();
  /** The status with which it refuses, or what it does instead of beginning. */
  refusal: number | null = null;
  refusals = 0;
  /** The container's PATH. */
  path = process.env.PATH ?? "";
  /** Where it has its programs. */
  systemPath = SYSTEM_PATH;
  /** Instead of what the server asks for, where it is set. */
  patience: number | null = null;
  readonly #open = new Set<ServerWebSocket<Exec>>();
  readonly #server: Bun.Server<Exec>;

  constructor() {
    this.#server = Bun.serve<Exec>({
      port: 0,
      fetch: (request, server) => {
        if (this.refusal !== null) {
          this.refusals += 1;
          return new Response(null, { status: this.refusal });
        }
        const command = new URL(request.url).searchParams.getAll("command").map((word) => this.#here(word));
        const at = command.indexOf("open") + command.indexOf("attach") + 1;
        if (this.patience !== null && at > 0) command[at + 3] = String(this.patience);
        const headers = { "Sec-WebSocket-Protocol": "v5.channel.k8s.io" };
        return server.upgrade(request, { data: { command }, headers }) ? undefined : new Response(null);
      },
      websocket: {
        open: (socket) => this.#run(socket),
        message(socket, frame) {
          if (typeof frame === "string" || frame[0] !== STDIN) return;
          socket.data.process?.stdin.write(new Uint8Array(frame.subarray(1)));
          void socket.data.process?.stdin.flush();
        },
        drain: (socket) => socket.data.drained?.(),
        close: (socket) => {
          this.#open.delete(socket);
          socket.data.drained?.();
          if (socket.data.process) cutPipes(socket.data.process);
        },
      },
    });
  }

  get connection(): Connection {
    return {
      server: `http://127.0.0.1:${this.#server.port}`,
      credentials: async () => ({ headers: {}, tls: {} }),
    };
  }

  /** How many commands run for clients. */
  get size(): number {
    return this.#open.size;
  }

  /** Ends every connection, and nothing is said. */
  cut(): void {
    for (const socket of this.#open) socket.terminate();
  }

  async close(): Promise<void> {
    await this.#server.stop(true);
  }

  #here(word: string): string {
    return word
      .replaceAll(HOLDER_SCRIPT, HOLDER)
      .replaceAll(TERMINALS_FOLDER, this.folder)
      .replaceAll(SYSTEM_PATH, this.systemPath);
  }

  async #run(socket: ServerWebSocket<Exec>): Promise<void> {
    this.#open.add(socket);
    const process = spawnBetweenPipes(socket.data.command, { PATH: this.path });
    socket.data.process = process;
    for await (const bytes of process.stdout) {
      socket.sendBinary(Buffer.concat([Uint8Array.of(STDOUT), bytes]));
      while (this.#open.has(socket) && socket.getBufferedAmount() > MOST_UNSENT_BYTES) {
        const { promise, resolve } = Promise.withResolvers<void>();
        socket.data.drained = resolve;
        await promise;
      }
    }
    const code = await process.exited;
    const causes = [{ reason: "ExitCode", message: String(code) }];
    const status = code === 0 ? { status: "Success" } : { status: "Failure", details: { causes } };
    socket.sendBinary(Buffer.concat([Uint8Array.of(STATUS), Buffer.from(JSON.stringify(status))]));
    socket.close();
  }
}
