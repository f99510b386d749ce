import { describe, expect, test } from "bun:test";
import { RuntimeRejected, RuntimeUnreachable } from "../../src/runtime/runtime.ts";
import { Connections } from "../../src/sockets/connections.ts";
import { LeftShell, ScriptedPty, spawnPty } from "../terminal/ptys.ts";
import { until } from "../until.ts";
import { Client } from "./client.ts";
import { ENVIRONMENT_ID, serveTerminals } from "./terminal-server.ts";

const BINARY = { protocols: ["devpocket.v1.binary"] };

describe("a terminal", () => {
  test("welcomes, shows what is printed, takes what is typed, and ends with the shell", async () => {
    await using server = serveTerminals();
    const client = new Client(server.url({ cols: 100, rows: 30 }));
    const welcome = await client.next("welcome");
    expect(welcome).toEqual({
      type: "welcome",
      message: "Connected to my-shell",
      environment: {
        id: ENVIRONMENT_ID,
        name: "my-shell",
        template: "shell",
        status: "running",
        installation_completed: true,
        pty_enabled: true,
      },
      session_id: expect.stringMatching(/^[0-9a-f]{24}$/),
      resumed: false,
      offset: 0,
      cols: 100,
      rows: 30,
      client_id: expect.stringMatching(/^[0-9a-f]{24}$/),
      input_seq: 0,
      input_offset: 0,
    });
    expect(client.types[0]).toBe("welcome");
    client.send({ type: "input", data: "stty size; echo $((6*7)) größe\r" });
    await until(() => client.output.includes("30 100\r\n42 größe"));
    client.send({ type: "resize", cols: 90, rows: 20 });
    client.send({ type: "input", data: "stty size\r" });
    await until(() => client.output.includes("20 90"));
    client.send({ type: "input", data: "exit 7\r" });
    expect(await client.next("exit")).toEqual({ type: "exit", code: 7 });
    expect((await client.end()).code).toBe(1000);
    expect(server.environments.watchers).toBe(0);
  });

  test("numbers its output without a gap", async () => {
    await using server = serveTerminals({ command: ["sh", "-c", "seq 1 20000; sleep 60"] });
    const client = new Client(server.url());
    await until(() => client.output.includes("20000\r\n"));
    let expected = 0;
    for (const message of client.messages.filter(({ type }) => type === "output")) {
      expect(message.offset).toBe(expected);
      expected += Buffer.byteLength(String(message.data));
      expect(message.next_offset).toBe(expected);
    }
  });

  test("shows characters whole wherever reads cut them", async () => {
    const ptys: ScriptedPty[] = [];
    await using server = serveTerminals({
      open: async (_id, options) => {
        const pty = new ScriptedPty(options);
        ptys.push(pty);
        return pty;
      },
    });
    const client = new Client(server.url());
    await client.next("welcome");
    for (const byte of Buffer.from("a€😀ß")) ptys[0]?.print(Uint8Array.of(byte));
    ptys[0]?.print(Uint8Array.of(0xff, 0x62));
    await until(() => client.output === "a€😀ß\ufffdb");
    expect(client.messages.at(-1)?.next_offset).toBe(12);
  });

  test("takes R2's form of a resize, and JSON in a binary frame without a subprotocol", async () => {
    await using server = serveTerminals();
    const client = new Client(server.url());
    await client.next("welcome");
    client.send({ type: "resize", data: "", metadata: { rows: 33, cols: 111 } });
    client.socket.send(Buffer.from(JSON.stringify({ type: "input", data: "stty size\r" })));
    await until(() => client.output.includes("33 111"));
  });

  test("complains about messages it can't use, and stays", async () => {
    await using server = serveTerminals();
    const client = new Client(server.url());
    await client.next("welcome");
    const wrong = [
      { type: "input" },
      { type: "input", data: 3 },
      { type: "input", data: "x", seq: 0 },
      { type: "resize", cols: 0, rows: 10 },
      { type: "resize", cols: 10, rows: 100_000 },
      { type: "ack", offset: 1_000_000 },
      { type: "fly" },
    ];
    for (const message of wrong) client.send(message);
    client.send({ type: "ping" });
    await client.next("pong");
    expect(client.types.filter((type) => type === "error").length).toBe(wrong.length);
  });

  test.each<[string, Record<string, string>, string]>([
    ["of someone else", { token: "token-bob" }, "Environment not found"],
    ["with an offset that is none", { offset: "-1" }, "offset: must be a whole number"],
    ["with a mode that is none", { mode: "fly" }, "mode: must be view or edit"],
    ["to view, of no session", { mode: "view" }, "Terminal session not found"],
  ])("%s is refused", async (_what, query, reason) => {
    await using server = serveTerminals();
    const client = new Client(server.url(query));
    expect(await client.end()).toEqual({ code: 1008, reason });
  });

  test("ends Ctrl-C's victim, and tells 128+n when the shell dies of a signal", async () => {
    await using server = serveTerminals();
    const client = new Client(server.url());
    await client.next("welcome");
    client.send({ type: "input", data: "sh -c 'echo rea\"\"dy; exec sleep 1000'; echo st''opped\r" });
    await until(() => client.output.includes("ready"));
    client.send({ type: "input", data: "\x03" });
    client.send({ type: "input", data: "echo still h''ere\r" });
    await until(() => client.output.includes("still here"));
    expect(client.output).not.toContain("stopped");
  });
});

describe("the binary protocol", () => {
  test("gives raw bytes, takes raw input, and counts both", async () => {
    await using server = serveTerminals();
    const client = new Client(server.url(), BINARY);
    const welcome = await client.next("welcome");
    client.socket.send(Buffer.from("printf '\\377\\376\\n'; exit\r"));
    expect(await client.next("input_ack")).toEqual({ type: "input_ack", seq: 0, offset: 26 });
    await client.next("exit");
    const output = Buffer.concat(client.binary);
    expect(output.includes(Uint8Array.of(0xff, 0xfe))).toBe(true);
    expect(client.types).not.toContain("output");
    expect(welcome.offset).toBe(0);
  });

  test("acknowledges a large paste in its course, not only in the end", async () => {
    await using server = serveTerminals({ command: ["sh", "-c", "stty raw -echo; exec cat > /dev/null"] });
    const client = new Client(server.url(), BINARY);
    await client.next("welcome");
    const [pieces, pieceBytes] = [10, 64 * 1024];
    for (let n = 0; n < pieces; n++) client.socket.send(new Uint8Array(pieceBytes).fill(0x61));
    for (let n = 0; n < pieces; n++) {
      expect(await client.next("input_ack", n)).toMatchObject({ offset: (n + 1) * pieceBytes });
    }
  });

  test("sends no more than 512 KiB unacknowledged, and all of it to one that acknowledges", async () => {
    const bytes = 3_000_000;
    await using server = serveTerminals({
      command: ["sh", "-c", `stty raw; head -c ${bytes} /dev/zero; sleep 60`],
    });
    const silent = new Client(server.url(), BINARY);
    const welcome = await silent.next("welcome");
    const received = (client: Client) => client.binary.reduce((sum, frame) => sum + frame.length, 0);
    await until(() => received(silent) >= 64 * 1024);
    for (let n = 0; n < 5; n++) {
      silent.send({ type: "ping" });
      await silent.next("pong", n);
    }
    expect(received(silent)).toBeLessThanOrEqual(512 * 1024);
    silent.socket.close();
    await silent.end();

    const client = new Client(server.url({ session_id: String(welcome.session_id), offset: 0 }), BINARY);
    let next = 0;
    let missing = 0;
    client.onFrame = (frame) => {
      if (frame instanceof Uint8Array) next += frame.length;
      else if (frame.type === "gap") {
        missing += Number(frame.bytes);
        next = Number(frame.offset);
      } else return;
      client.send({ type: "ack", offset: next });
    };
    await until(() => next === bytes);
    expect(received(client) + missing).toBe(bytes);
  });
});

describe("resuming", () => {
  test("goes on at exactly the next byte, with what was printed meanwhile", async () => {
    await using server = serveTerminals();
    const first = new Client(server.url());
    const { session_id } = await first.next("welcome");
    first.send({ type: "input", data: "echo be''fore; sleep 0.2; echo af''ter\r" });
    await until(() => first.output.includes("before\r\n"));
    const offset = Number(first.messages.at(-1)?.next_offset);
    first.socket.terminate();

    const second = new Client(server.url({ session_id: String(session_id), offset }));
    expect(await second.next("welcome")).toMatchObject({ session_id, offset, resumed: true });
    await until(() => second.output.includes("after\r\n"));
    expect(second.output.startsWith("after")).toBe(true);
  });

  test("of a session that is gone begins a new one and says so", async () => {
    await using server = serveTerminals();
    const client = new Client(server.url({ session_id: "0123", offset: 99 }));
    expect(await client.next("welcome")).toMatchObject({ resumed: false, offset: 0 });
  });

  test("input that may have been lost is sent again and applied once", async () => {
    await using server = serveTerminals({ command: ["cat"] });
    const first = new Client(server.url({ client_id: "phone" }));
    const { session_id } = await first.next("welcome");
    for (const seq of [1, 2, 3]) first.send({ type: "input", data: `<${seq}>`, seq });
    expect(await first.next("input_ack")).toMatchObject({ seq: 3 });

    const second = new Client(server.url({ client_id: "phone", session_id: String(session_id), offset: 0 }));
    expect(await second.next("welcome")).toMatchObject({ input_seq: 3, input_offset: 9 });
    expect(await first.end()).toEqual({ code: 1000, reason: "Resumed on another connection" });
    for (const seq of [2, 3, 4]) second.send({ type: "input", data: `<${seq}>`, seq });
    second.send({ type: "input", data: "\r" });
    await until(() => second.output.includes("<4>\r\n<1>"));
    expect(second.output).toBe("<1><2><3><4>\r\n<1><2><3><4>\r\n");
    second.send({ type: "input", data: "x", seq: 9 });
    expect(await second.next("error")).toMatchObject({
      message: "Input 9 was not taken: number 5 comes next",
    });
  });

  test("takes the place of the client's own connection at once, also where no more are allowed", async () => {
    await using server = serveTerminals({ connections: new Connections({ perUser: 2 }) });
    const first = new Client(server.url({ client_id: "phone" }));
    const { session_id } = await first.next("welcome");
    const other = new Client(
      server.url({ client_id: "phone", mode: "view", session_id: String(session_id) }),
    );
    await other.next("welcome");
    for (const query of [{ client_id: "laptop", session_id: String(session_id) }, { client_id: "phone" }]) {
      expect((await new Client(server.url(query)).end()).reason).toBe("Too many connections");
    }
    const again = { client_id: "phone", session_id: String(session_id), offset: 0 };
    const second = new Client(server.url(again));
    expect(await second.next("welcome")).toMatchObject({ session_id, resumed: true });
    expect(await first.end()).toEqual({ code: 1000, reason: "Resumed on another connection" });
    const third = new Client(server.url(again));
    expect(await third.next("welcome")).toMatchObject({ session_id, resumed: true });
    expect(other.closed).toBeNull();
  });

  test("joins others, who see the same and its size", async () => {
    await using server = serveTerminals();
    const laptop = new Client(server.url({ cols: 100, rows: 30 }));
    const { session_id } = await laptop.next("welcome");
    const phone = new Client(server.url({ session_id: String(session_id), cols: 40, rows: 20 }));
    await phone.next("welcome");
    expect(await laptop.next("resize")).toEqual({ type: "resize", cols: 40, rows: 20 });
    const tv = new Client(server.url({ session_id: String(session_id), mode: "view" }));
    await tv.next("welcome");
    phone.send({ type: "input", data: "echo sh''ared\r" });
    await Promise.all([laptop, phone, tv].map((client) => until(() => client.output.includes("shared"))));
    tv.send({ type: "input", data: "echo intr''uder\r" });
    expect((await tv.next("error")).message).toBe("This connection can only view the terminal");
    expect(laptop.output).toBe(phone.output);
  });
});

describe("the message limit", () => {
  test("tells a client once that it is over, and loses none of its input", async () => {
    await using server = serveTerminals({
      command: ["bash", "--norc", "-c", "stty raw -echo; echo ready; exec cat"],
      messagesPerMinute: 60,
    });
    const client = new Client(server.url());
    await until(() => client.output.includes("ready"));
    // A minute's 60 messages of 64 KiB may come at once: these are two more.
    const pieces = Array.from({ length: 62 }, (_, n) => String.fromCharCode(65 + n).repeat(64 * 1024));
    for (const data of pieces) client.send({ type: "input", data });
    const sent = pieces.join("");
    expect((await client.next("error")).message).toBe("Rate limit exceeded. Please slow down.");
    await until(() => client.output.length >= sent.length + "ready\n".length, { timeoutMs: 20_000 });
    expect(client.output.replace(/^ready\r?\n/, "") === sent).toBe(true);
    expect(client.types.filter((type) => type === "error").length).toBe(1);
  }, 20_000);

  test("counts with what is held back what it takes to remember messages", async () => {
    await using server = serveTerminals({
      messagesPerMinute: 0,
      open: async (_id, options) => Object.assign(new ScriptedPty(options), { takesInput: false }),
    });
    const client = new Client(server.url());
    await client.next("welcome");
    for (let seq = 1; seq <= 66_000; seq++) client.send({ type: "input", data: "x", seq });
    expect(await client.end()).toEqual({ code: 1009, reason: "Too much input is held back" });
  });

  test("holds back no more than 4 MiB", async () => {
    await using server = serveTerminals({ command: ["cat"], messagesPerMinute: 1 });
    const client = new Client(server.url());
    await client.next("welcome");
    for (let n = 0; n < 5; n++) client.send({ type: "input", data: "x".repeat(1000 * 1024) });
    expect(await client.end()).toEqual({ code: 1009, reason: "Too much input is held back" });
  });
});

describe("an environment's life", () => {
  test("a terminal waits for its environment and attaches by itself", async () => {
    await using server = serveTerminals();
    server.environments.become("installing", "Step 1 of 2", 20);
    const client = new Client(server.url({ cols: 70, rows: 20 }));
    expect(await client.next("welcome")).toMatchObject({
      environment: { status: "installing", pty_enabled: false },
    });
    expect(await client.next("info")).toEqual({
      type: "info",
      message: "Environment is still installing. Terminal will be available once installation completes.",
    });
    await client.next("status_update");
    client.send({ type: "input", data: "too early" });
    client.send({ type: "resize", cols: 71, rows: 21 });
    client.send({ type: "ping" });
    await client.next("pong");
    server.environments.become("installing", "Step 2 of 2", 60);
    expect(await client.next("status_update", 1)).toEqual({
      type: "status_update",
      environment_id: ENVIRONMENT_ID,
      status: "installing",
      message: "Step 2 of 2",
      progress: 60,
      timestamp: "2026-01-02T03:04:05.000Z",
    });
    server.environments.become("running", null, 100);
    const second = await client.next("welcome", 1);
    expect(second).toMatchObject({
      environment: { status: "running", pty_enabled: true },
      offset: 0,
      cols: 71,
    });
    client.send({ type: "input", data: "stty size\r" });
    await until(() => client.output.includes("21 71"));
    expect(client.output).not.toContain("too early");
  });

  /** A terminal that is opened when the test says so. */
  function serveSlowly() {
    const ptys: ScriptedPty[] = [];
    let opened = Promise.withResolvers<void>();
    const server = serveTerminals({
      open: async (_id, options) => {
        const pty = new ScriptedPty(options);
        ptys.push(pty);
        await opened.promise;
        return pty;
      },
    });
    const said = async (client: Client) => {
      const pongs = client.types.filter((type) => type === "pong").length;
      client.send({ type: "ping" });
      await client.next("pong", pongs);
    };
    const open = () => {
      opened.resolve();
      opened = Promise.withResolvers();
    };
    return { server, ptys, open, said };
  }

  test("numbered input that came too early is typed once when it is sent again", async () => {
    const { server: serving, ptys, open, said } = serveSlowly();
    await using server = serving;
    server.environments.become("installing");
    const client = new Client(server.url());
    const type = (...numbers: number[]) => {
      for (const seq of numbers) client.send({ type: "input", data: `<${seq}>`, seq });
    };
    await client.next("welcome");
    type(1);
    await said(client);
    server.environments.become("running", null, 100);
    type(2);
    await said(client);
    open();
    expect(await client.next("welcome", 1)).toMatchObject({ input_seq: 0, input_offset: 0 });
    // Was on its way when the terminal came.
    type(3);
    expect((await client.next("error")).message).toBe("Input 3 was not taken: number 1 comes next");
    type(1, 2, 3);
    await until(() => ptys[0]?.typed === "<1><2><3>");
    await until(() => client.messages.at(-1)?.seq === 3);
    expect(client.messages.filter(({ type }) => type === "input_ack").at(-1)).toMatchObject({ offset: 9 });
  });

  test.each([
    ["sends again what was not taken", ["<2>", "<3>", "<4>", "<5>"], "<2><3><4><5>"],
    ["wants none of it any more", ["", "", "", "<5>"], "<5>"],
  ])("a client that counts on over a restart, and %s, goes on", async (_what, again, typed) => {
    const { server: serving, ptys, open, said } = serveSlowly();
    await using server = serving;
    const client = new Client(server.url());
    const type = (seq: number, data = `<${seq}>`) => client.send({ type: "input", data, seq });
    await until(() => ptys.length === 1);
    open();
    await client.next("welcome");
    type(1);
    await client.next("input_ack");
    server.environments.become("restarting");
    server.hub.endAll(ENVIRONMENT_ID);
    type(2);
    type(3);
    await said(client);
    server.environments.become("running", null, 100);
    type(4);
    await said(client);
    open();
    expect(await client.next("welcome", 1)).toMatchObject({ resumed: false, input_seq: 0 });
    // Was on its way when the terminal came: what was dropped before it would be taken for repeated.
    type(5);
    expect((await client.next("error")).message).toBe("Input 5 was not taken: number 2 comes next");
    for (const [n, data] of again.entries()) type(n + 2, data);
    await until(() => ptys[1]?.typed === typed);
    await until(() => client.messages.at(-1)?.seq === 5);
  });

  test("bytes are counted on over a restart, those that are lost with it too", async () => {
    const { server: serving, ptys, open, said } = serveSlowly();
    await using server = serving;
    const client = new Client(server.url(), { protocols: ["devpocket.v1.binary"] });
    await until(() => ptys.length === 1);
    open();
    await client.next("welcome");
    client.socket.send(Buffer.from("abc"));
    expect(await client.next("input_ack")).toMatchObject({ offset: 3 });
    server.environments.become("restarting");
    server.hub.endAll(ENVIRONMENT_ID);
    client.socket.send(Buffer.from("de"));
    await said(client);
    server.environments.become("running", null, 100);
    client.socket.send(Buffer.from("fg"));
    await said(client);
    open();
    expect(await client.next("welcome", 1)).toMatchObject({ resumed: false, input_offset: 5 });
    client.socket.send(Buffer.from("h"));
    await until(() => client.messages.at(-1)?.offset === 8);
    expect(ptys[1]?.typed).toBe("fgh");
  });

  test("acknowledgements of what came before a restart are no fault", async () => {
    const { server: serving, ptys, open, said } = serveSlowly();
    await using server = serving;
    const client = new Client(server.url());
    await until(() => ptys.length === 1);
    open();
    await client.next("welcome");
    ptys[0]?.print("0123456789");
    await until(() => client.output.length === 10);
    server.environments.become("restarting");
    server.hub.endAll(ENVIRONMENT_ID);
    client.send({ type: "ack", offset: 9 });
    server.environments.become("running", null, 100);
    open();
    await client.next("welcome", 1);
    client.send({ type: "ack", offset: 10 });
    await said(client);
    expect(client.types).not.toContain("error");
    client.send({ type: "ack", offset: 11 });
    expect((await client.next("error")).message).toBe("Acknowledged more than was sent");
  });

  test("bytes that are counted are not kept after some that were dropped", async () => {
    const { server: serving, ptys, open, said } = serveSlowly();
    await using server = serving;
    server.environments.become("installing");
    const client = new Client(server.url(), { protocols: ["devpocket.v1.binary"] });
    await client.next("welcome");
    client.socket.send(Buffer.from("A"));
    await said(client);
    server.environments.become("running", null, 100);
    client.socket.send(Buffer.from("BB"));
    await said(client);
    open();
    expect(await client.next("welcome", 1)).toMatchObject({ input_offset: 0 });
    client.socket.send(Buffer.from("ABB"));
    expect(await client.next("input_ack")).toMatchObject({ offset: 3 });
    expect(ptys[0]?.typed).toBe("ABB");
  });

  test.each(["stopping", "stopped", "terminated"] as const)("%s closes it with 1000", async (status) => {
    await using server = serveTerminals();
    const client = new Client(server.url());
    await client.next("welcome");
    server.environments.become(status);
    server.hub.endAll(ENVIRONMENT_ID);
    expect(await client.end()).toEqual({ code: 1000, reason: "Environment stopped" });
    expect(client.types).not.toContain("exit");
  });

  test.each(["stopping", "stopped", "error", "terminated"] as const)(
    "%s refuses a new one",
    async (status) => {
      await using server = serveTerminals();
      server.environments.become(status);
      const client = new Client(server.url());
      expect(await client.end()).toEqual({ code: 1008, reason: `Environment is ${status}` });
      expect(client.messages).toEqual([{ type: "error", message: `Environment is ${status}` }]);
    },
  );

  test("a failure while it waits is told and closes it", async () => {
    await using server = serveTerminals();
    server.environments.become("provisioning");
    const client = new Client(server.url());
    await client.next("welcome");
    server.environments.become("error", "image nosuch:1 cannot be pulled: not found");
    expect((await client.end()).code).toBe(1008);
    expect(client.messages.at(-1)).toEqual({
      type: "error",
      message: "image nosuch:1 cannot be pulled: not found",
    });
  });

  test("a restart keeps the socket and gives it a new session", async () => {
    await using server = serveTerminals();
    const client = new Client(server.url());
    const first = await client.next("welcome");
    server.environments.become("restarting");
    server.hub.endAll(ENVIRONMENT_ID);
    server.environments.become("provisioning");
    server.environments.become("running", null, 100);
    const second = await client.next("welcome", 1);
    expect(second).toMatchObject({ resumed: false, offset: 0, environment: { pty_enabled: true } });
    expect(second.session_id).not.toBe(first.session_id);
    client.send({ type: "input", data: "echo ag''ain\r" });
    await until(() => client.output.includes("again"));
    expect(client.types).not.toContain("exit");
  });

  test("a restart keeps together who shared a session, a viewer too", async () => {
    await using server = serveTerminals();
    const first = new Client(server.url());
    const session_id = String((await first.next("welcome")).session_id);
    // Hears of the restart before the others do.
    const viewer = new Client(server.url({ session_id, mode: "view" }));
    await viewer.next("welcome");
    const second = new Client(server.url({ session_id }));
    await second.next("welcome");
    const cut = new Client(server.url({ session_id }));
    await cut.next("welcome");
    cut.socket.close();
    for (const status of ["restarting", "running"] as const) {
      server.environments.become(status);
      server.hub.endAll(ENVIRONMENT_ID);
    }
    const back = new Client(server.url({ session_id, offset: 3 }));
    const welcomes = await Promise.all([
      back.next("welcome"),
      ...[first, viewer, second].map((client) => client.next("welcome", 1)),
    ]);
    expect(new Set(welcomes.map((welcome) => welcome.session_id)).size).toBe(1);
    first.send({ type: "input", data: "echo se''en\r" });
    for (const client of [first, viewer, second, back]) await until(() => client.output.includes("seen"));
  });

  test("a restart while the terminal is being opened keeps the socket too", async () => {
    const held = Promise.withResolvers<void>();
    const ptys: ScriptedPty[] = [];
    await using server = serveTerminals({
      open: async (_id, options) => {
        const pty = new ScriptedPty(options);
        ptys.push(pty);
        if (ptys.length === 1) await held.promise;
        return pty;
      },
    });
    const client = new Client(server.url());
    await until(() => ptys.length === 1);
    server.environments.become("restarting");
    server.hub.endAll(ENVIRONMENT_ID);
    held.resolve();
    expect(await client.next("welcome")).toMatchObject({ environment: { pty_enabled: false } });
    expect(ptys[0]?.isKilled).toBe(true);
    server.environments.become("running", null, 100);
    expect(await client.next("welcome", 1)).toMatchObject({ environment: { pty_enabled: true } });
    expect(ptys.length).toBe(2);
  });

  test("a shell that is lost on the way is replaced", async () => {
    const ptys: ScriptedPty[] = [];
    await using server = serveTerminals({
      open: async (_id, options) => {
        const pty = new ScriptedPty(options);
        ptys.push(pty);
        return pty;
      },
    });
    const client = new Client(server.url());
    await client.next("welcome");
    ptys[0]?.options.onExit(null);
    await client.next("info");
    expect(await client.next("welcome", 1)).toMatchObject({ resumed: false });
    expect(ptys.length).toBe(2);
  });

  test("a client that counts bytes has to connect again when it was lost with the way what became of them", async () => {
    const ptys: ScriptedPty[] = [];
    await using server = serveTerminals({
      open: async (_id, options) => {
        // It says what it has; here it never does.
        const pty = Object.assign(new ScriptedPty(options), { confirmsInput: true });
        ptys.push(pty);
        return pty;
      },
    });
    const protocols = ["devpocket.v1.binary"];
    const [typing, looking] = [0, 1].map(() => new Client(server.url(), { protocols }));
    await until(() => typing?.types.includes("welcome") && looking?.types.includes("welcome"));
    typing?.socket.send(Buffer.from("abc"));
    await until(() => ptys.some(({ typed }) => typed === "abc"));
    for (const pty of ptys.splice(0)) pty.options.onExit(null);
    expect(await typing?.end()).toEqual({ code: 1013, reason: "The terminal was lost. Connect again." });
    // Nothing of this one's is in doubt.
    looking?.socket.send(Buffer.from("de"));
    expect(await looking?.next("welcome", 1)).toMatchObject({ input_offset: 0 });
    await until(() => ptys[0]?.typed === "de");
  });

  test("a shell to which the way was lost goes on for its clients with the next byte", async () => {
    const shell = new LeftShell("one two".length);
    const ptys: ScriptedPty[] = [];
    await using server = serveTerminals({
      open: async (_id, options) => {
        const pty = new ScriptedPty(options);
        ptys.push(pty);
        return pty;
      },
      takeUp: async () => shell,
    });
    const client = new Client(server.url());
    const { session_id } = await client.next("welcome");
    ptys[0]?.print("one ");
    await until(() => client.output === "one ");
    ptys[0]?.options.onExit(null);
    await until(() => shell.pty);
    shell.pty?.print("one two");
    expect(await client.next("welcome", 1)).toMatchObject({ session_id, resumed: true, offset: 4 });
    await until(() => client.output === "one two");
    expect(ptys.length).toBe(1);
  });

  test("a shell that was lost while its client was away is replaced too, and gets what is typed meanwhile", async () => {
    const held = Promise.withResolvers<void>();
    const ptys: ScriptedPty[] = [];
    await using server = serveTerminals({
      open: async (_id, options) => {
        const pty = new ScriptedPty(options);
        ptys.push(pty);
        if (ptys.length === 2) await held.promise;
        return pty;
      },
    });
    const first = new Client(server.url());
    const { session_id } = await first.next("welcome");
    first.socket.terminate();
    await until(() => server.environments.watchers === 0);
    ptys[0]?.options.onExit(null);
    const client = new Client(server.url({ session_id: String(session_id) }));
    expect(await client.next("welcome")).toMatchObject({ session_id, resumed: true });
    await client.next("info");
    client.send({ type: "input", data: "typed" });
    client.send({ type: "ping" });
    await client.next("pong");
    held.resolve();
    expect(await client.next("welcome", 1)).toMatchObject({ resumed: false });
    await until(() => ptys[1]?.typed === "typed");
  });

  test("shells that are lost as soon as they begin are replaced ever more slowly", async () => {
    const opened: number[] = [];
    await using server = serveTerminals({
      open: async (_id, options) => {
        opened.push(performance.now());
        const pty = new ScriptedPty(options);
        options.onExit(null);
        return pty;
      },
    });
    const client = new Client(server.url());
    await until(() => opened.length === 3);
    const [one = 0, two = 0, three = 0] = opened;
    expect([two - one >= 250, three - two >= 500]).toEqual([true, true]);
    expect(client.closed).toBeNull();
  });

  test("a size that is told while the terminal is being opened is that of the terminal", async () => {
    const held = Promise.withResolvers<void>();
    const ptys: ScriptedPty[] = [];
    await using server = serveTerminals({
      open: async (_id, options) => {
        const pty = new ScriptedPty(options);
        ptys.push(pty);
        await held.promise;
        return pty;
      },
    });
    const client = new Client(server.url({ cols: 70, rows: 20 }));
    // The terminal may be asked for before the client knows that it is connected.
    await until(() => ptys.length === 1 && client.socket.readyState === WebSocket.OPEN);
    client.send({ type: "resize", cols: 71, rows: 21 });
    client.send({ type: "resize", cols: 72, rows: 22 });
    client.send({ type: "ping" });
    await client.next("pong");
    held.resolve();
    expect(await client.next("welcome")).toMatchObject({ cols: 72, rows: 22 });
    expect(ptys[0]?.sizes).toEqual([
      { cols: 70, rows: 20 },
      { cols: 72, rows: 22 },
    ]);
  });

  test("a cluster that can't be reached for a moment is tried again", async () => {
    let tries = 0;
    await using server = serveTerminals({
      open: async (_id, options) => {
        tries += 1;
        if (tries === 1) throw new RuntimeUnreachable("no answer");
        return await spawnPty(options, ["cat"]);
      },
    });
    const client = new Client(server.url());
    expect(await client.next("welcome")).toMatchObject({ environment: { pty_enabled: false } });
    client.send({ type: "input", data: "early\r" });
    expect(await client.next("welcome", 1)).toMatchObject({ environment: { pty_enabled: true } });
    await until(() => client.output.includes("early\r\nearly\r\n"));
  });

  test("a client that leaves while its terminal is opened leaves no shell behind", async () => {
    const held = Promise.withResolvers<void>();
    const ptys: ScriptedPty[] = [];
    await using server = serveTerminals({
      open: async (_id, options) => {
        await held.promise;
        const pty = new ScriptedPty(options);
        ptys.push(pty);
        return pty;
      },
    });
    const client = new Client(server.url());
    await until(() => server.connections.size === 1 && server.environments.watchers === 1);
    client.socket.close();
    await until(() => server.connections.size === 0);
    held.resolve();
    await until(() => ptys[0]?.isKilled);
    expect(server.hub.size).toBe(0);
  });
});

describe("routes", () => {
  const headers = { Authorization: "Bearer token-ada" };
  const terminals = `/api/v1/environments/${ENVIRONMENT_ID}/terminals`;

  test("list and end sessions", async () => {
    await using server = serveTerminals();
    expect(await (await fetch(server.http + terminals, { headers })).json()).toEqual([]);
    const client = new Client(server.url({ cols: 81, rows: 25 }));
    const { session_id } = await client.next("welcome");
    client.send({ type: "input", data: "printf '\\033]0;my title\\007'\r" });
    const list = async (): Promise<Record<string, unknown>[]> =>
      JSON.parse(await (await fetch(server.http + terminals, { headers })).text());
    await until(async () => (await list())[0]?.title === "my title");
    expect(await list()).toEqual([
      {
        session_id,
        title: "my title",
        command: null,
        cols: 81,
        rows: 25,
        attached: 1,
        since: expect.stringMatching(/^\d{4}-.*Z$/),
      },
    ]);
    const end = () => fetch(`${server.http}${terminals}/${session_id}`, { method: "DELETE", headers });
    expect((await end()).status).toBe(204);
    await client.next("exit");
    expect((await end()).status).toBe(404);
  });

  test.each([
    { error: new RuntimeUnreachable("10.0.0.1 does not answer"), detail: "The cluster can't be reached" },
    { error: new RuntimeRejected("rejected", "exec is forbidden"), detail: "exec is forbidden" },
  ])("can't end what can't be asked for: 503, $detail", async ({ error, detail }) => {
    await using server = serveTerminals({
      takeUp: async () => {
        throw error;
      },
    });
    const answer = await fetch(`${server.http}${terminals}/0123`, { method: "DELETE", headers });
    expect([answer.status, await answer.json()]).toEqual([503, expect.objectContaining({ detail })]);
  });

  test("are closed to others", async () => {
    await using server = serveTerminals();
    const bob = { Authorization: "Bearer token-bob" };
    expect((await fetch(server.http + terminals, { headers: bob })).status).toBe(404);
    expect((await fetch(server.http + terminals)).status).toBe(401);
    expect((await fetch(`${server.http}/api/v1/ws/ticket`, { method: "POST" })).status).toBe(401);
    const gone = await fetch(`${server.http}${terminals}/0123`, { method: "DELETE", headers: bob });
    expect(gone.status).toBe(404);
  });

  test("give tickets that open a terminal once", async () => {
    await using server = serveTerminals();
    const answer = await fetch(`${server.http}/api/v1/ws/ticket`, { method: "POST", headers });
    const { ticket, expires_in } = JSON.parse(await answer.text());
    expect(expires_in).toBe(30);
    const url = server.url().replace("token=token-ada", `ticket=${ticket}`);
    await new Client(url).next("welcome");
    expect((await new Client(url).end()).code).toBe(1008);
  });
});
