import type { Guard } from "../../src/auth/guard.ts";
import type { EnvironmentStatus } from "../../src/db/schema.ts";
import { AppError } from "../../src/errors.ts";
import { answerError } from "../../src/http/errors.ts";
import { newRouter } from "../../src/http/router.ts";
import type { Pty, TerminalOptions } from "../../src/runtime/runtime.ts";
import { type SocketOptions, websocket } from "../../src/sockets/accept.ts";
import type { EnvironmentAccess, SocketEnvironment, SocketStatusChange } from "../../src/sockets/access.ts";
import { terminalRoutes } from "../../src/sockets/routes.ts";
import { type HubOptions, TerminalHub } from "../../src/terminal/hub.ts";
import { spawnPty } from "../terminal/ptys.ts";
import { authenticate, quiet, socketOptions } from "./server.ts";

export const ENVIRONMENT_ID = "0123456789abcdef01234567";

/** Environments as the sockets see them: one, of ada's, whose life the test leads. */
export class OneEnvironment implements EnvironmentAccess {
  readonly environment: SocketEnvironment = {
    id: ENVIRONMENT_ID,
    name: "my-shell",
    template: "shell",
    status: "running",
    message: null,
    progress: 100,
    installationCompleted: true,
  };
  readonly #watchers = new Set<(change: SocketStatusChange) => void>();

  find(actor: { userId: string }, id: string): SocketEnvironment | undefined {
    return actor.userId === "ada" && id === this.environment.id ? this.environment : undefined;
  }

  watch(_id: string, changed: (change: SocketStatusChange) => void): () => void {
    this.#watchers.add(changed);
    return () => this.#watchers.delete(changed);
  }

  get watchers(): number {
    return this.#watchers.size;
  }

  become(status: EnvironmentStatus, message: string | null = null, progress = 0): void {
    Object.assign(this.environment, { status, message, progress });
    const { installationCompleted } = this.environment;
    for (const changed of [...this.#watchers]) {
      changed({ status, message, progress, installationCompleted, atMs: Date.parse("2026-01-02T03:04:05Z") });
    }
  }
}

const actorOf: Guard["actorOf"] = (c) =>
  authenticate(c.req.header("authorization")?.replace("Bearer ", "") ?? "");

const guard: Guard = {
  authenticate,
  actorOf,
  identify: async () => undefined,
  requireActor: async (c, next) => {
    c.set("actor", await actorOf(c));
    await next();
  },
  requireAdmin: async () => {
    throw new AppError("forbidden", "not here");
  },
  confirmAdmin: async () => {
    throw new AppError("forbidden", "not here");
  },
};

interface TerminalServerOptions extends Partial<SocketOptions> {
  /** What runs in each terminal; default: a shell without start-up files. */
  command?: string[];
  open?: (environmentId: string, options: TerminalOptions) => Promise<Pty>;
  takeUp?: HubOptions["takeUp"];
}

/** A real server with terminals of this machine. */
export function serveTerminals({ command, open, takeUp, ...options }: TerminalServerOptions = {}) {
  const sockets = socketOptions(options);
  const environments = new OneEnvironment();
  const shell = command ?? ["bash", "--norc", "--noprofile"];
  const ptys: Pty[] = [];
  const hub = new TerminalHub({
    open: async (environmentId, terminal) => {
      const pty = open ? await open(environmentId, terminal) : await spawnPty(terminal, shell);
      ptys.push(pty);
      return pty;
    },
    ...(takeUp ? { takeUp } : {}),
  });
  const router = newRouter();
  router.onError(answerError(quiet));
  router.route("/", terminalRoutes({ environments, guard, hub, sockets, log: quiet }));
  const server = Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    fetch: (request, bun) => router.fetch(request, { server: bun }),
    websocket,
  });
  const { port } = server;
  const path = `/api/v1/ws/terminal/${ENVIRONMENT_ID}`;
  return {
    ...sockets,
    environments,
    hub,
    port,
    http: `http://127.0.0.1:${port}`,
    /** The terminal's address for ada, with more of a query. */
    url: (query: Record<string, string | number> = {}) => {
      const all = new URLSearchParams({ token: "token-ada" });
      for (const [name, value] of Object.entries(query)) all.set(name, String(value));
      return `ws://127.0.0.1:${port}${path}?${all}`;
    },
    [Symbol.asyncDispose]: async () => {
      sockets.connections.shutDown();
      hub.close();
      for (const pty of ptys) pty.kill();
      await server.stop(true);
    },
  };
}
