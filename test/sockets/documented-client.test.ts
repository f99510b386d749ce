import { expect, test } from "bun:test";
import { join } from "node:path";
import protocol from "../../src/sockets/terminal-protocol.md" with { type: "text" };
import { temporaryFolder } from "../harness.ts";
import { LeftShell, ScriptedPty } from "../terminal/ptys.ts";
import { until } from "../until.ts";
import { CountedStream } from "./cuts.ts";
import { type Cut, cuttingProxy } from "./cutting-proxy.ts";
import { ENVIRONMENT_ID, serveTerminals } from "./terminal-server.ts";

interface Documented {
  connect(
    url: string,
    token: string,
    options: {
      write(output: Uint8Array | string): void;
      ended?(reason: string): void;
      clientId?: string;
    },
  ): { type(text: string): void; close(): void };
}

/** The client of the documentation, as someone would take it from there. */
async function documentedClient(): Promise<Documented> {
  const source = /```js\n([\s\S]*?)```/.exec(protocol)?.[1];
  const file = join(temporaryFolder(), "client.js");
  await Bun.write(file, source ?? "");
  return await import(file);
}

const address = (port: number, server: { url(): string }) =>
  server
    .url()
    .replace(/:\d+\//, `:${port}/`)
    .replace(/\?.*/, "");

/** Each connection lives for a while, each a bit longer than the last. */
function everLater(): () => Cut {
  let down = 2000;
  return () => {
    down *= 2;
    return { down, up: null };
  };
}

test("the documented client shows every byte once and in order, however often it is cut", async () => {
  const { connect } = await documentedClient();
  await using server = serveTerminals({
    command: ["bash", "-c", "stty raw; seq 0 120000; read end; exit 3"],
  });
  using proxy = await cuttingProxy(server.port ?? 0, everLater());
  const stream = new CountedStream();
  let reason: string | undefined;
  const client = connect(address(proxy.port, server), "token-ada", {
    write: (output) => stream.push(Buffer.from(output)),
    ended: (why) => {
      reason = why;
    },
  });
  await until(() => stream.next === 120_001, { timeoutMs: 20_000 });
  expect(proxy.cuts).toBeGreaterThan(3);
  client.type("\n");
  expect(await until(() => reason)).toBe("Shell exited");
}, 30_000);

test("the documented client's input arrives once and in order, however often it is cut", async () => {
  const { connect } = await documentedClient();
  await using server = serveTerminals({
    command: ["bash", "-c", "stty raw -echo; echo; exec cat"],
    messagesPerMinute: 0,
  });
  using proxy = await cuttingProxy(server.port ?? 0, everLater());
  const stream = new CountedStream();
  let isReady = false;
  const client = connect(address(proxy.port, server), "token-ada", {
    write(output) {
      // The first line says that the terminal echoes no more.
      if (isReady) stream.push(Buffer.from(output));
      isReady = true;
    },
  });
  await until(() => isReady);
  for (let n = 0; n < 5000; n++) {
    client.type(`${n}\n`);
    if (n % 100 === 0) await Bun.sleep(0);
  }
  await until(() => stream.next === 5000, { timeoutMs: 20_000 });
  expect(proxy.cuts).toBeGreaterThan(1);
  client.close();
}, 30_000);

test.each([
  { back: "the shell that has taken it all", session_id: "a", input_offset: 11, again: "" },
  { back: "the shell that has taken a part", session_id: "a", input_offset: 8, again: "st;" },
  { back: "the shell that has forgotten it", session_id: "a", input_offset: 0, again: "" },
  { back: "another shell", session_id: "b", input_offset: 0, again: "" },
])(
  "the documented client types into $back what is missing there",
  async ({ session_id, input_offset, again }) => {
    const { connect } = await documentedClient();
    const welcomes = [
      { type: "welcome", session_id: "a", offset: 0, input_offset: 0 },
      { type: "welcome", session_id, offset: 0, input_offset },
    ];
    let typed = "";
    let shown = "";
    using server = Bun.serve({
      port: 0,
      hostname: "127.0.0.1",
      fetch: (request, bun) =>
        bun.upgrade(request, { headers: { "Sec-WebSocket-Protocol": "devpocket.v1.binary" } })
          ? undefined
          : new Response(null, { status: 426 }),
      websocket: {
        open(socket) {
          socket.sendText(JSON.stringify(welcomes.shift()));
          socket.sendBinary(Buffer.from("$ "));
        },
        message(socket, frame) {
          if (typeof frame === "string") return;
          typed += frame;
          if (typed !== "early;") return;
          socket.sendText(JSON.stringify({ type: "input_ack", seq: 0, offset: 6 }));
          socket.sendBinary(Buffer.from("taken"));
          socket.close(1001);
        },
      },
    });
    const client = connect(`ws://127.0.0.1:${server.port}`, "token", {
      write(output) {
        shown += Buffer.from(output);
        if (shown.endsWith("taken")) client.type("lost;");
      },
    });
    await until(() => shown === "$ ");
    client.type("early;");
    await until(() => shown === "$ taken$ ");
    client.type("new;");
    await until(() => typed.endsWith("new;"));
    expect(typed).toBe(`early;${again}new;`);
    client.close();
  },
);

test("the documented client's input is typed once when the way to its shell was lost and found again", async () => {
  const { connect } = await documentedClient();
  // Of "abc" it had taken "ab" when the way was lost.
  const shell = new LeftShell(0, { input: [{ client: "me/1", bytes: 2, seq: 0, part: 0 }] });
  const found = Promise.withResolvers<void>();
  const ptys: ScriptedPty[] = [];
  let isAskedFor = false;
  await using server = serveTerminals({
    open: async (_id, options) => {
      // It says what it has; here it never does.
      const pty = Object.assign(new ScriptedPty(options), { confirmsInput: true });
      ptys.push(pty);
      return pty;
    },
    takeUp: async () => {
      isAskedFor = true;
      await found.promise;
      return shell;
    },
  });
  const client = connect(address(server.port ?? 0, server), "token-ada", { clientId: "me", write: () => {} });
  client.type("abc");
  await until(() => ptys[0]?.typed === "abc");
  ptys[0]?.options.onExit(null);
  client.type("d");
  await until(() => isAskedFor);
  client.type("e");
  found.resolve();
  await until(() => shell.pty?.typed === "cde");
  client.type("f");
  await until(() => shell.pty?.typed.endsWith("f"));
  expect(shell.pty?.typed).toBe("cdef");
  expect(ptys.length).toBe(1);
  client.close();
});

test("the documented client's input is typed once over a restart and a cut after it", async () => {
  const { connect } = await documentedClient();
  const ptys: ScriptedPty[] = [];
  await using server = serveTerminals({
    messagesPerMinute: 0,
    open: async (_id, options) => {
      const pty = new ScriptedPty(options);
      ptys.push(pty);
      return pty;
    },
  });
  using proxy = await cuttingProxy(server.port ?? 0, () => ({ down: null, up: null }));
  const client = connect(address(proxy.port, server), "token-ada", { write: () => {} });
  let typed = 0;
  const typeOn = async (isEnough: () => boolean) => {
    while (!isEnough()) {
      client.type(`${++typed};`);
      await new Promise(setImmediate);
    }
  };
  await typeOn(() => (ptys[0]?.typed.length ?? 0) > 1000);
  server.environments.become("restarting");
  server.hub.endAll(ENVIRONMENT_ID);
  const lostFrom = typed;
  await typeOn(() => typed >= lostFrom + 50);
  server.environments.become("running", null, 100);
  await typeOn(() => (ptys[1]?.typed.length ?? 0) > 1000);
  proxy.cutAll();
  const cutAt = typed;
  await typeOn(() => typed >= cutAt + 50);
  await until(() => ptys[1]?.typed.endsWith(`;${typed};`));
  const numbers = ptys[1]?.typed.split(";").slice(0, -1).map(Number) ?? [];
  const [first = 0] = numbers;
  expect(first).toBeGreaterThan(lostFrom);
  expect(numbers).toEqual(numbers.map((_, n) => first + n));
  client.close();
});
