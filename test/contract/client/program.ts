import type { components, paths } from "devpocket-api";
import createClient from "openapi-fetch";

/*
 * The main job, as a stranger would write it with a client that is generated from the OpenAPI document:
 * client.test.ts makes its types, compiles it and runs it. Usage: program.ts URL
 */

type ServerMessage = components["schemas"]["TerminalServerMessage"];
type ClientMessage = components["schemas"]["TerminalClientMessage"];
type Environment = components["schemas"]["Environment"];

const [url = ""] = process.argv.slice(2);
const password = "a stranger's long password";
const wait = { prefer: "wait=30" };

/** The data of an answer, or its error in words. */
function taken<T>({ data, error, response }: { data?: T; error?: unknown; response: Response }): T {
  if (data !== undefined) return data;
  throw new Error(`${response.url}: ${response.status} ${JSON.stringify(error)}`);
}

const api = createClient<paths>({ baseUrl: url });

await api.POST("/api/v1/auth/register", {
  body: { username: "stranger", email: "stranger@example.org", password },
});
const signIn = taken(
  await api.POST("/api/v1/auth/login", { body: { username_or_email: "stranger", password } }),
);
api.use({
  onRequest({ request }) {
    request.headers.set("Authorization", `Bearer ${signIn.access_token}`);
  },
});

const templates = taken(await api.GET("/api/v1/templates", { params: { query: { status: "active" } } }));
const template = templates.find(({ name }) => name === "shell")?.id;
const environment: Environment = taken(
  await api.POST("/api/v1/environments", {
    params: { header: wait },
    body: { name: "first", ...(template && { template }), environment_variables: { GREETING: "hello" } },
  }),
);
if (environment.status !== "running") throw new Error(environment.status_message ?? environment.status);

const path = { environment_id: environment.id };
await inTerminal("echo $GREETING, stranger > file; cat file", "hello, stranger");
taken(await api.POST("/api/v1/environments/{environment_id}/stop", { params: { path, header: wait } }));
const started = taken(
  await api.POST("/api/v1/environments/{environment_id}/start", { params: { path, header: wait } }),
);
if (started.status !== "running") throw new Error(started.message);
await inTerminal("cat file", "hello, stranger");
const logs = taken(await api.GET("/api/v1/environments/{environment_id}/logs", { params: { path } }));
if (typeof logs === "string" || logs.logs.length === 0) throw new Error("no logs");
await api.DELETE("/api/v1/environments/{environment_id}", { params: { path, header: wait } });
const left = taken(await api.GET("/api/v1/environments"));
console.log(`done, ${left.length} environments left`);

/** Types a line into a new terminal and waits until it has printed `expected`. */
async function inTerminal(line: string, expected: string): Promise<void> {
  const { ticket } = taken(await api.POST("/api/v1/ws/ticket"));
  const socket = new WebSocket(
    `${url.replace(/^http/, "ws")}/api/v1/ws/terminal/${environment.id}?ticket=${ticket}`,
  );
  let printed = "";
  await new Promise<void>((resolve, reject) => {
    socket.onclose = ({ reason }) => reject(new Error(`closed: ${reason}`));
    socket.onmessage = ({ data }) => {
      const message: ServerMessage = JSON.parse(String(data));
      if (message.type === "error") reject(new Error(message.message));
      if (message.type === "welcome" && message.session_id) send({ type: "input", data: `${line}\r` });
      if (message.type === "output") printed += message.data;
      if (printed.includes(`${expected}\r\n`)) resolve();
    };
  });
  socket.close();

  function send(message: ClientMessage): void {
    socket.send(JSON.stringify(message));
  }
}
