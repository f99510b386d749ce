import { expect } from "bun:test";
import type { TestSocket } from "../../harness.ts";
import { until } from "../../until.ts";
import type { Table } from "../row.ts";
import { anyNumber, anyText, anyTime, type Person, type Site } from "../site.ts";
import { APP_ORIGIN, adminOf, type World } from "../world.ts";

type Kind = "Terminal" | "Log";

const TERMINAL = "/api/v1/ws/terminal";
const LOGS = "/api/v1/ws/logs";
const ROUTES = { Terminal: `GET ${TERMINAL}/{environment_id}`, Log: `GET ${LOGS}/{environment_id}` };

/** Holds every message of a socket against the document, and `expected` among them counts as shown. */
function shows(site: Site, kind: Kind, socket: TestSocket, ...expected: object[]): void {
  const name = `${kind}ServerMessage`;
  const schema = site.document.schema(name);
  for (const message of socket.messages) expect(site.document.misfits(name, schema, message)).toEqual([]);
  for (const message of expected) {
    expect(JSON.parse(JSON.stringify(socket.messages))).toContainEqual(expect.objectContaining(message));
    site.coverage.answered(site.document, schema, message, name);
  }
  site.coverage.statuses.add(`${ROUTES[kind]} 101`);
}

function sends(site: Site, kind: Kind, socket: TestSocket, message: Record<string, unknown>): void {
  const name = `${kind}ClientMessage`;
  const schema = site.document.schema(name);
  expect(site.document.misfits(name, schema, message)).toEqual([]);
  for (const field of site.document.fields(schema, name, { is: message })) {
    site.coverage.requestFields.add(field);
  }
  socket.send(message);
}

function connect(
  site: Site,
  kind: Kind,
  id: string,
  query: Record<string, string>,
  protocols: string[] = [],
  headers: Record<string, string> = {},
): Promise<TestSocket> {
  for (const name of ["environment_id", ...Object.keys(query)]) {
    site.coverage.parameters.add(`${ROUTES[kind]} ${name}`);
  }
  const path = kind === "Terminal" ? TERMINAL : LOGS;
  return site.socket(`${path}/${id}?${new URLSearchParams(query)}`, protocols, headers);
}

/** A terminal of Ada's environment, once its shell is there. */
async function terminal({ main, ada, adas }: World, query: Record<string, string> = {}): Promise<TestSocket> {
  const socket = await connect(main, "Terminal", adas, { token: ada.token, ...query });
  await socket.message("welcome", ({ session_id }) => typeof session_id === "string");
  return socket;
}

async function refused(socket: TestSocket, says: RegExp): Promise<void> {
  const { code, reason } = await socket.closes();
  expect([code, socket.messages.at(-1)]).toEqual([
    1008,
    { type: "error", message: expect.stringMatching(says) },
  ]);
  expect(socket.messages.at(-1)?.message).toContain(reason);
}

async function ticketFor(site: Site, as: Person): Promise<string> {
  const { body } = await site.call("POST /api/v1/ws/ticket", {
    as,
    status: 200,
    answer: { ticket: anyText, expires_in: 30 },
  });
  return body.ticket;
}

/** An environment whose installation takes until `go` is called. */
async function installing({ main, admin, ada }: World) {
  const name = "waits";
  const known = main.document.operation("GET /api/v1/templates/{template_id}");
  if ((await main.send(known, { as: admin, params: { template_id: name } })).status === 404) {
    await main.call("POST /api/v1/templates", {
      as: admin,
      body: {
        name,
        display_name: "Waits",
        category: "devops",
        docker_image: null,
        startup_commands: ["echo first line; while [ ! -e go ]; do sleep 0.05; done", "echo second line"],
      },
      status: 201,
    });
  }
  const { body } = await main.call("POST /api/v1/environments", {
    as: ada,
    body: { name, template: name },
    status: 201,
  });
  const id: string = body.id;
  await until(
    async () => {
      const call = { as: ada, params: { environment_id: id }, status: 200 };
      return (
        (await main.call("GET /api/v1/environments/{environment_id}", call)).body.status === "installing"
      );
    },
    { message: "it does not install" },
  );
  return {
    id,
    async go() {
      const [folder] = [...new Bun.Glob(`**/${id}`).scanSync({ cwd: main.server.dataDir, onlyFiles: false })]
        .filter((path) => path.startsWith("workspaces"))
        .map((path) => `${main.server.dataDir}/${path}`);
      await Bun.write(`${folder}/go`, "");
    },
    async remove() {
      await main.call("DELETE /api/v1/environments/{environment_id}", {
        as: ada,
        params: { environment_id: id },
        headers: { Prefer: "wait=20" },
        status: 204,
      });
    },
  };
}

export const SOCKETS: Table = [
  [
    "R 991, E 242",
    "a terminal begins with welcome: who it is connected to, and the session with its offsets",
    async (world) => {
      const socket = await terminal(world);
      shows(world.main, "Terminal", socket, {
        type: "welcome",
        message: "Connected to adas",
        environment: {
          id: world.adas,
          name: "adas",
          template: "shell",
          status: "running",
          installation_completed: true,
          pty_enabled: true,
        },
        session_id: anyText,
        resumed: false,
        offset: anyNumber,
        cols: 80,
        rows: 24,
        client_id: anyText,
        input_seq: 0,
        input_offset: 0,
      });
      socket.close();
    },
  ],
  [
    "R 965, R 1007, R 2025, E 245, E 248",
    "input is typed into the shell and output comes back, each byte with its offset",
    async (world) => {
      const socket = await terminal(world);
      sends(world.main, "Terminal", socket, { type: "input", data: "echo con''tract\r", seq: 1 });
      await socket.prints("contract\r\n");
      await socket.message("input_ack");
      shows(
        world.main,
        "Terminal",
        socket,
        { type: "output", data: anyText, offset: anyNumber, next_offset: anyNumber },
        { type: "input_ack", seq: 1, offset: 16 },
      );
      socket.close();
    },
  ],
  [
    "R 973, R 2045, E 246, D input forms",
    "resize is understood in both forms; another client of the session is told",
    async (world) => {
      const socket = await terminal(world, { cols: "90", rows: "30" });
      const { session_id } = socket.messages.find(({ type }) => type === "welcome") ?? {};
      const viewer = await terminal(world, {
        session_id: String(session_id),
        mode: "view",
        client_id: "tablet",
      });
      sends(world.main, "Terminal", socket, { type: "resize", cols: 101, rows: 33 });
      await viewer.message("resize", ({ cols }) => cols === 101);
      sends(world.main, "Terminal", socket, { type: "resize", metadata: { cols: 102, rows: 34 } });
      await viewer.message("resize", ({ cols }) => cols === 102);
      shows(world.main, "Terminal", viewer, { type: "resize", cols: 102, rows: 34 });
      shows(world.main, "Terminal", viewer, { type: "welcome", resumed: true, client_id: "tablet" });
      socket.type("stty size\r");
      await socket.prints("34 102");
      const { body } = await world.main.call("GET /api/v1/environments/{environment_id}/terminals", {
        as: world.ada,
        params: { environment_id: world.adas },
        status: 200,
      });
      const ours = body.find((one: { session_id: string }) => one.session_id === session_id);
      expect(ours).toMatchObject({ cols: 102, rows: 34, attached: 2 });
      viewer.close();
      socket.close();
    },
  ],
  [
    "D not in the texts",
    "terminal sessions are listed and can be ended",
    async (world) => {
      const { main, ada, adas } = world;
      const socket = await terminal(world);
      const LIST = "GET /api/v1/environments/{environment_id}/terminals";
      const params = { environment_id: adas };
      const { body } = await main.call(LIST, {
        as: ada,
        params,
        query: { limit: "1" },
        status: 200,
        answer: [
          {
            session_id: anyText,
            title: null,
            command: null,
            cols: 80,
            rows: 24,
            attached: 1,
            since: anyTime,
          },
        ],
      });
      const END = "DELETE /api/v1/environments/{environment_id}/terminals/{session_id}";
      const one = { environment_id: adas, session_id: body[0].session_id };
      await main.call(END, { as: ada, params: one, status: 204 });
      await socket.message("exit");
      await until(async () => {
        const left = await main.call(LIST, { as: ada, params, status: 200 });
        return !left.body.some(({ session_id }: { session_id: string }) => session_id === one.session_id);
      });
      await main.call(END, { as: ada, params: one, status: 404 });
    },
  ],
  [
    "R 982, R 1035, R 1077, E 247, E 254",
    "ping is answered with pong, on both sockets",
    async (world) => {
      const { main, ada, adas } = world;
      const logs = await connect(main, "Log", adas, { token: ada.token });
      for (const [kind, socket] of [
        ["Terminal", await terminal(world)],
        ["Log", logs],
      ] as const) {
        sends(main, kind, socket, { type: "ping" });
        await socket.message("pong");
        shows(main, kind, socket, { type: "pong" });
        socket.close();
      }
    },
  ],
  [
    "R 1015, D input forms",
    "what is no message gets an error message; the socket stays",
    async (world) => {
      const socket = await terminal(world);
      socket.socket.send("not JSON");
      socket.send({ type: "dance" });
      socket.send({ type: "resize", cols: 0, rows: -1 });
      await socket.until(
        "three errors",
        () => socket.messages.filter(({ type }) => type === "error").length === 3,
      );
      shows(world.main, "Terminal", socket, { type: "error", message: anyText });
      socket.socket.send(new TextEncoder().encode('{"type":"ping"}'));
      await socket.message("pong");
      socket.close();
    },
  ],
  [
    "D terminal messages",
    "the end of the shell is told with its exit code, then 1000",
    async (world) => {
      const socket = await terminal(world);
      socket.type("exit 7\r");
      expect((await socket.closes()).code).toBe(1000);
      shows(world.main, "Terminal", socket, { type: "exit", code: 7 });
    },
  ],
  [
    "D output",
    "a dropped client comes back with session and offset and gets what it has not seen; too old is a gap",
    async (world) => {
      const socket = await terminal(world);
      socket.type("echo un''seen; head -c 3000000 /dev/zero | tr '\\\\0' x; echo; echo do''ne\r");
      await socket.prints("done\r\n");
      const welcome = socket.messages.find(({ type }) => type === "welcome");
      const last = socket.messages.findLast(({ type }) => type === "output");
      socket.close();
      const session_id = String(welcome?.session_id);
      const resumed = await terminal(world, { session_id, offset: String(last?.offset) });
      await resumed.until("the last bytes", () => resumed.text.startsWith(String(last?.data)));
      shows(world.main, "Terminal", resumed, { type: "welcome", resumed: true, offset: last?.offset });
      resumed.close();
      const late = await terminal(world, { session_id, offset: "0" });
      await late.message("gap");
      shows(world.main, "Terminal", late, {
        type: "gap",
        bytes: anyNumber,
        offset: anyNumber,
        restore: anyText,
      });
      const anew = await terminal(world, { session_id });
      await anew.prints("done");
      shows(world.main, "Terminal", anew, { type: "welcome", restore: anyText });
      late.type("exit\r");
      await Promise.all([late.closes(), anew.closes()]);
    },
  ],
  [
    "D input forms",
    "with devpocket.v1.binary output and input are bytes, acknowledged by the client",
    async ({ main, ada, adas }) => {
      const socket = await connect(main, "Terminal", adas, { token: ada.token }, ["devpocket.v1.binary"]);
      expect(socket.socket.protocol).toBe("devpocket.v1.binary");
      let bytes = "";
      socket.socket.binaryType = "arraybuffer";
      socket.socket.addEventListener("message", ({ data }) => {
        if (typeof data !== "string") bytes += Buffer.from(data).toString();
      });
      await socket.message("welcome", ({ session_id }) => typeof session_id === "string");
      socket.socket.send(new TextEncoder().encode("echo by''tes\r"));
      await until(() => bytes.includes("bytes"));
      sends(main, "Terminal", socket, { type: "ack", offset: 1 });
      socket.close();
    },
  ],
  [
    "R 1023, R 1042, E 256, D terminal before running",
    "before it runs a terminal is told info and status_update, and attaches by itself",
    async (world) => {
      const { main, ada } = world;
      const environment = await installing(world);
      const socket = await connect(main, "Terminal", environment.id, { token: ada.token });
      const info = await socket.message("info");
      expect(info.message).toContain("Terminal will be available once installation completes");
      const welcome = socket.messages[0];
      expect(welcome).toMatchObject({
        type: "welcome",
        environment: { pty_enabled: false, status: "installing" },
      });
      await environment.go();
      await socket.message("welcome", ({ session_id }) => typeof session_id === "string");
      shows(
        main,
        "Terminal",
        socket,
        { type: "info", message: anyText },
        {
          type: "status_update",
          environment_id: environment.id,
          status: "running",
          message: anyText,
          progress: 100,
          timestamp: anyTime,
        },
      );
      await environment.remove();
      expect(await socket.closes()).toEqual({ code: 1000, reason: "Environment stopped" });
    },
  ],
  [
    "R 1088, R 1097, R 1107, R 1117, E 257, E 258, E 259",
    "the log socket welcomes, tells of the installation line by line, its status and its end",
    async (world) => {
      const { main, ada } = world;
      const environment = await installing(world);
      const socket = await connect(main, "Log", environment.id, { token: ada.token });
      await socket.message("installation_status");
      await environment.go();
      await socket.message("installation_complete");
      const environment_id = environment.id;
      shows(
        main,
        "Log",
        socket,
        { type: "welcome", message: "Connected to waits logs", environment_id, offset: anyNumber },
        { type: "installation_status", environment_id, status: "installing", message: anyText },
        {
          type: "installation_log",
          environment_id,
          data: "first line\n",
          timestamp: anyTime,
          offset: anyNumber,
        },
        { type: "installation_complete", environment_id, status: "running" },
        {
          type: "status_update",
          environment_id,
          status: "running",
          message: anyText,
          progress: 100,
          timestamp: anyTime,
        },
      );
      await environment.remove();
    },
  ],
  [
    "R 1126, E 260",
    "an installation that failed is told with its reason",
    async ({ main, failing }) => {
      const { person, created } = await failing;
      const socket = await connect(main, "Log", created.body.id, { token: person.token });
      await socket.message("installation_error");
      shows(main, "Log", socket, {
        type: "installation_error",
        environment_id: created.body.id,
        error: expect.stringContaining("exit 3"),
      });
      socket.close();
    },
  ],
  [
    "R 1135, D logs",
    "the log is replayed since the last installation began, or after since_offset",
    async ({ main, ada, adas }) => {
      const socket = await connect(main, "Log", adas, { token: ada.token });
      const { offset } = await socket.message("log");
      shows(main, "Log", socket, {
        type: "log",
        timestamp: anyTime,
        level: "INFO",
        message: anyText,
        source: "system",
        offset: anyNumber,
      });
      const rest = await connect(main, "Log", adas, { token: ada.token, since_offset: String(offset) });
      expect((await rest.message("log")).offset).toBe(Number(offset) + 1);
      socket.send({ type: "dance" });
      await socket.message("error");
      shows(main, "Log", socket, { type: "error", message: anyText });
      rest.close();
      socket.close();
    },
  ],
  [
    "R 954, R 1068, R 1999, E 243, D who",
    "who is there is said by query, header, subprotocol, ticket or first message, on both sockets",
    async ({ main, ada, adas }) => {
      for (const kind of ["Terminal", "Log"] as const) {
        const bearer = { Authorization: `Bearer ${ada.token}` };
        const ticket = await ticketFor(main, ada);
        const ways = [
          () => connect(main, kind, adas, { token: ada.token }),
          () => connect(main, kind, adas, {}, [], bearer),
          () => connect(main, kind, adas, {}, [`bearer.${ada.token}`]),
          () => connect(main, kind, adas, { ticket }),
        ];
        for (const way of ways) {
          const socket = await way();
          await socket.message("welcome");
          socket.close();
        }
        for (const proof of [{ token: ada.token }, { ticket: await ticketFor(main, ada) }]) {
          const socket = await connect(main, kind, adas, {});
          sends(main, kind, socket, { type: "auth", ...proof });
          await socket.message("welcome");
          socket.close();
        }
        await refused(await connect(main, kind, adas, { ticket }), /ticket/i);
      }
    },
  ],
  [
    "R 1152, R 2057, D refusal",
    "whoever may not is accepted, told why and closed with 1008: bad token, no or another's environment",
    async ({ main, ada, bob, admin, adas }) => {
      for (const kind of ["Terminal", "Log"] as const) {
        await refused(await connect(main, kind, adas, { token: "x.y.z" }), /token/i);
        await refused(await connect(main, kind, adas, { token: ada.refreshToken }), /token/i);
        for (const { token } of [bob, admin]) {
          await refused(await connect(main, kind, adas, { token }), /Environment not found/);
        }
        await refused(await connect(main, kind, "nosuch", { token: ada.token }), /Environment not found/);
        const socket = await connect(main, kind, adas, {});
        socket.send({ type: "input", data: "ls\r" });
        await refused(socket, /Authentication required/);
      }
    },
  ],
  [
    "D terminal before running",
    "a terminal of an environment that is stopped or failed is refused",
    async ({ main, failing }) => {
      const { person, created } = await failing;
      await refused(await connect(main, "Terminal", created.body.id, { token: person.token }), /./);
    },
  ],
  [
    "D who",
    "a browser's Origin must be the server's own or a listed one",
    async ({ main, ada, adas }) => {
      const from = (origin: string) =>
        connect(main, "Log", adas, { token: ada.token }, [], { Origin: origin });
      for (const origin of [APP_ORIGIN, main.url]) {
        const socket = await from(origin);
        await socket.message("welcome");
        socket.close();
      }
      await refused(await from("https://evil.example.org"), /Origin/);
    },
  ],
  [
    "D refusal",
    "a request that is no upgrade is 426",
    async ({ main, ada, adas }) => {
      for (const key of Object.values(ROUTES)) {
        const params = { environment_id: adas };
        const { headers } = await main.call(key, {
          as: ada,
          params,
          status: 426,
          answer: { detail: anyText },
        });
        expect(headers.get("upgrade")).toBe("websocket");
      }
    },
  ],
  [
    "R 1057, R 1147, R 1277",
    "over 100 messages a minute there is one error message, and nothing is lost",
    async (world) => {
      const socket = await terminal(world);
      for (let n = 0; n < 110; n++) socket.send({ type: "dance" });
      await socket.message("error", ({ message }) => message === "Rate limit exceeded. Please slow down.");
      socket.close();
    },
  ],
  [
    "D tokens",
    "signing out closes the session's sockets at once",
    async ({ main, adas, ada }) => {
      const again = await main.signIn(ada.username, ada.password);
      const socket = await connect(main, "Log", adas, { token: again.token });
      await socket.message("welcome");
      await main.call("POST /api/v1/auth/logout", { as: again, status: 200 });
      expect((await socket.closes()).code).toBe(1008);
    },
  ],
  [
    "R 1146, R 1276, R 2270, E 443, D limits",
    "a user has ten connections at a time; the eleventh is refused",
    async ({ main, ada, adas }) => {
      const open = () => connect(main, "Log", adas, { token: ada.token });
      // Those of rows before may still be on their way out.
      const sockets = await until(async () => {
        const opened = await Promise.all(Array.from({ length: 10 }, open));
        await Promise.all(opened.map((one) => Promise.race([one.message("welcome"), one.closes()])));
        if (opened.every(({ closed }) => !closed)) return opened;
        for (const one of opened) one.close();
        return undefined;
      });
      await refused(await open(), /Too many connections/);
      for (const one of sockets) one.close();
    },
  ],
  [
    "D shutting down",
    "a server that stops closes its sockets with 1001",
    async ({ mailing }) => {
      const admin = await adminOf(mailing);
      const id = await mailing.environment(admin);
      const socket = await connect(mailing, "Terminal", id, { token: admin.token }, [], mailing.headers);
      await socket.message("welcome", ({ session_id }) => typeof session_id === "string");
      expect(await mailing.server.stop()).toBe(0);
      expect((await socket.closes()).code).toBe(1001);
    },
  ],
];
