import { TestServer } from "../../harness.ts";
import { until } from "../../until.ts";
import type { Link } from "./links.ts";

/** A real server with an environment on this machine, whose limits are out of the way. */
export async function startServer(environment: Record<string, string> = {}) {
  const server = await TestServer.start({
    environment: { WS_MESSAGES_PER_MINUTE: "0", WS_CONNECTIONS_PER_USER: "2000", ...environment },
  });
  const admin = await server.signedIn();
  return {
    pid: server.pid,
    admin,
    stop: () => server.stop(),
    /** Makes an environment; `link` gives the way to a new terminal in it, by protocol. */
    async environment(name: string, more: Record<string, unknown> = {}) {
      const made = await admin.environment({ name, template: "shell", ...more });
      if (made.status !== "running") throw new Error(`${name} is ${made.status}: ${made.status_message}`);
      const url = `${server.url.replace("http", "ws")}/api/v1/ws/terminal/${made.id}?token=${admin.token}`;
      const link = (kind: "json" | "binary"): Link & { url: string } => ({ kind, url });
      return {
        id: String(made.id),
        link,
        /** A flood that nobody reads goes on otherwise. */
        async endTerminals() {
          const path = `/api/v1/environments/${made.id}/terminals`;
          const sessions = await admin.list(path);
          await Promise.all(sessions.map(({ session_id }) => admin.delete(`${path}/${session_id}`)));
          await until(async () => (await admin.list(path)).length === 0);
        },
      };
    },
  };
}

/** Null: it is not installed. */
export async function startTtyd(): Promise<{ link: Link; stop(): void } | null> {
  const command = process.env.BENCH_TTYD ?? Bun.which("ttyd");
  if (!command) return null;
  const child = Bun.spawn([...command.split(" "), "-i", "127.0.0.1", "-p", "0", "-W", "sh"], {
    stdout: "ignore",
    stderr: "pipe",
    env: { PATH: "/usr/local/bin:/usr/bin:/bin", LANG: "C.UTF-8", PS1: "$ " },
  });
  let said = "";
  void (async () => {
    const decoder = new TextDecoder();
    for await (const chunk of child.stderr) said += decoder.decode(chunk, { stream: true });
  })();
  const port = await until(() => /Listening on port: (\d+)/.exec(said)?.[1], {
    message: () => `ttyd does not listen: ${said}`,
  });
  return { link: { kind: "ttyd", url: `ws://127.0.0.1:${port}/ws` }, stop: () => child.kill() };
}
