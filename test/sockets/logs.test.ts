import { afterAll, describe, expect, test } from "bun:test";
import type { EnvironmentStatus } from "../../src/db/schema.ts";
import { StatusFeed } from "../../src/environments/feed.ts";
import { answerError } from "../../src/http/errors.ts";
import { newRouter } from "../../src/http/router.ts";
import { createLogStore } from "../../src/logs/store.ts";
import { websocket } from "../../src/sockets/accept.ts";
import type { EnvironmentAccess, SocketEnvironment } from "../../src/sockets/access.ts";
import { logSocketRoutes, serveLogs } from "../../src/sockets/logs.ts";
import { line, lines, openLogDatabase } from "../logs/environment.ts";
import { until } from "../until.ts";
import { Client } from "./client.ts";
import { actor, quiet, socketOptions } from "./server.ts";

const database = openLogDatabase();
const store = createLogStore(database.db);
const feed = new StatusFeed();
const views = new Map<string, SocketEnvironment>();
const sockets = socketOptions();
const router = newRouter();
router.onError(answerError(quiet));
const environments: EnvironmentAccess = {
  find: ({ userId }, id) => (userId === "ada" ? views.get(id) : undefined),
  watch: (id, listener) => feed.watch(id, listener),
};
router.route("/", logSocketRoutes({ sockets, store, environments }));
const server = Bun.serve({
  port: 0,
  hostname: "127.0.0.1",
  fetch: (request, bun) => router.fetch(request, { server: bun }),
  websocket,
});
afterAll(async () => {
  sockets.connections.shutDown();
  await server.stop(true);
  database[Symbol.dispose]();
});

function newEnvironment(status: EnvironmentStatus = "running", installationCompleted = true): string {
  const id = database.newEnvironment();
  views.set(id, {
    id,
    name: "my-env",
    template: "python",
    status,
    message: null,
    progress: 0,
    installationCompleted,
  });
  return id;
}

function become(
  id: string,
  status: EnvironmentStatus,
  message: string | null = null,
  completed = false,
): void {
  const view = views.get(id);
  if (!view) throw new Error("no such environment");
  feed.publish({
    environmentId: id,
    userId: "ada",
    generation: 1,
    status,
    lastedMs: 0,
    previous: view.status,
    message,
    progress: 50,
    installationCompleted: completed,
    atMs: 1_700_000_000_000,
  });
  views.set(id, { ...view, status, message, installationCompleted: completed });
}

function connect(id: string, query = ""): Client {
  return new Client(`ws://127.0.0.1:${server.port}/api/v1/ws/logs/${id}?token=token-ada${query}`);
}

const container = { source: "container" } as const;

describe("a client of the log", () => {
  test("is welcomed and gets everything since the last installation began, then what comes", async () => {
    const id = newEnvironment();
    store.append(id, [...lines(1, 3, container), ...lines(4, 5)]);
    store.appendSystem(id, { message: "Starting Python", generation: 2, beginsInstallation: true });
    store.append(id, [line(7, { ...container, generation: 2 }), line(8, { generation: 2, level: "WARN" })]);
    const client = connect(id);
    await until(() => client.types.filter((type) => type === "log").length === 2);
    store.append(id, [line(9, { generation: 2 })]);
    await until(() => client.types.filter((type) => type === "log").length === 3);
    expect(client.messages).toEqual([
      { type: "welcome", message: "Connected to my-env logs", environment_id: id, offset: 5 },
      {
        type: "status_update",
        environment_id: id,
        status: "running",
        message: "Environment is running",
        progress: 0,
        timestamp: expect.any(String),
      },
      {
        type: "log",
        timestamp: expect.any(String),
        level: "INFO",
        message: "Starting Python",
        source: "system",
        offset: 6,
      },
      {
        type: "installation_log",
        environment_id: id,
        data: "line 7\n",
        timestamp: "2023-11-14T22:13:20.007Z",
        offset: 7,
      },
      {
        type: "log",
        timestamp: "2023-11-14T22:13:20.008Z",
        level: "WARN",
        message: "line 8",
        source: "application",
        offset: 8,
      },
      expect.objectContaining({ message: "line 9", offset: 9 }),
    ]);
    client.socket.close();
  });

  test("of an environment that runs is told that its installation is complete, also without any line", async () => {
    const id = newEnvironment();
    const client = connect(id);
    expect(await client.next("installation_complete")).toEqual({
      type: "installation_complete",
      environment_id: id,
      status: "running",
    });
    client.socket.close();
  });

  test("follows an installation, whose last lines come before its end", async () => {
    const id = newEnvironment("creating", false);
    const client = connect(id);
    await client.next("status_update");
    become(id, "installing", "Step 1 of 2");
    store.append(id, [line(1, container)]);
    await client.next("installation_log");
    become(id, "running", null, true);
    store.append(id, [line(2, container)]);
    await client.next("installation_complete");
    expect(client.types).toEqual([
      "welcome",
      "status_update",
      "status_update",
      "installation_status",
      "installation_log",
      "status_update",
      "installation_log",
      "installation_complete",
    ]);
    expect(await client.next("installation_status")).toEqual({
      type: "installation_status",
      environment_id: id,
      status: "installing",
      message: "Step 1 of 2",
    });
    become(id, "restarting");
    become(id, "running", null, true);
    await client.next("installation_complete", 1);
    client.socket.close();
  });

  test("is told that its installation is complete before what comes after, however soon", async () => {
    const id = newEnvironment("installing", false);
    const client = connect(id);
    await client.next("status_update");
    become(id, "running", null, true);
    become(id, "stopping", null, true);
    const told = () => client.messages.filter(({ type }) => type !== "welcome").slice(2);
    await until(() => told().length === 3);
    expect(told().map(({ type, status }) => [type, status])).toEqual([
      ["status_update", "running"],
      ["installation_complete", "running"],
      ["status_update", "stopping"],
    ]);
    client.socket.close();
  });

  test("is told why an installation failed, when it happens and when it connects later", async () => {
    const id = newEnvironment("installing", false);
    const early = connect(id);
    await early.next("installation_status");
    become(id, "error", "Command 1 failed with exit code 2: pip install nosuch");
    const late = connect(id);
    for (const client of [early, late]) {
      expect(await client.next("installation_error")).toEqual({
        type: "installation_error",
        environment_id: id,
        error: "Command 1 failed with exit code 2: pip install nosuch",
      });
      client.socket.close();
    }
  });

  test("that is cut again and again and resumes has every line once and in order", async () => {
    const id = newEnvironment();
    const total = 4000;
    let written = 0;
    const writer = setInterval(() => {
      const count = Math.min(total - written, 40);
      store.append(id, lines(written + 1, written + count));
      written += count;
      if (written === total) clearInterval(writer);
    }, 2);
    const got: unknown[] = [];
    let cuts = 0;
    while (got.length < total) {
      const client = connect(id, `&since_offset=${got.at(-1) ?? 0}`);
      const enough = Math.min(total - got.length, 1 + Math.floor(Math.random() * 300));
      const received = () => client.messages.filter(({ type }) => type === "log");
      await until(() => received().length >= enough, { intervalMs: 1 });
      client.socket.terminate();
      got.push(...received().map(({ offset }) => offset));
      cuts++;
    }
    expect(cuts).toBeGreaterThan(10);
    expect(got).toEqual(Array.from({ length: total }, (_, index) => index + 1));
  });

  test("that does not read costs nothing, and is told what was dropped when it reads again", async () => {
    const id = newEnvironment();
    const message = "x".repeat(1023);
    const client = connect(id);
    await client.next("status_update");
    client.socket.pause();
    const total = 30 * 1024;
    for (let n = 1; n <= total; n += 256) {
      store.append(id, lines(n, n + 255, { message }));
      await Bun.sleep(0);
    }
    client.socket.resume();
    await until(() => client.messages.findLast(({ type }) => type === "log")?.offset === total);
    const got = client.messages.filter(({ type }) => type === "log");
    const gaps = got.filter(({ source }) => source === "system");
    expect(gaps.length).toBeGreaterThan(0);
    const missing = gaps.reduce((sum, gap) => sum + Number(/\d+/.exec(String(gap.message))?.[0]), 0);
    expect(got.length - gaps.length + missing).toBe(total);
    const offsets = got.map(({ offset }) => Number(offset));
    expect(offsets).toEqual([...new Set(offsets)].sort((a, b) => a - b));
    client.socket.close();
  });

  test("is answered a ping, and told that nothing else is expected", async () => {
    const client = connect(newEnvironment());
    await client.next("welcome");
    client.send({ type: "input", data: "ls" });
    expect(await client.next("error")).toEqual({
      type: "error",
      message: "Nothing but ping is expected here",
    });
    client.send({ type: "ping" });
    await client.next("pong");
    client.socket.close();
  });

  test.each<[string, string, boolean, string]>([
    ["of someone else's environment", "", false, "Environment not found"],
    ["with an offset that is none", "&since_offset=x", true, "since_offset: Must be a whole number"],
  ])("%s is turned away with 1008", async (_, query, known, reason) => {
    const id = known ? newEnvironment() : database.newEnvironment();
    const client = connect(id, query);
    expect(await client.end()).toEqual({ code: 1008, reason });
    expect(client.messages).toEqual([{ type: "error", message: reason }]);
  });

  test.each(["while it listens", "before it comes"])(
    "gets the rest of the log of an environment that is deleted %s, then 1000",
    async (when) => {
      const id = newEnvironment();
      store.append(id, lines(1, 5000));
      if (when === "before it comes") become(id, "terminated");
      const client = connect(id);
      await client.next("welcome");
      if (when === "while it listens") become(id, "terminated");
      expect(await client.end()).toEqual({ code: 1000, reason: "Environment deleted" });
      expect(client.messages.filter(({ type }) => type === "log")).toHaveLength(5000);
    },
  );
});

test("what becomes of an environment while a client takes the last lines is told after them", async () => {
  const id = newEnvironment();
  store.append(id, lines(1, 3));
  const told: unknown[] = [];
  const ends: number[] = [];
  const peer = {
    actor: actor("ada"),
    speaksBinary: false,
    unsentBytes: 0,
    messages: null,
    send({ status }: { type: string; status?: unknown }) {
      if (status) told.push(status);
    },
    sendText(line: string) {
      told.push(JSON.parse(line).offset);
      peer.unsentBytes += 1_000_000;
    },
    sendBinary: () => {},
    complain: () => {},
    overLimit: () => {},
    underLimit: () => {},
    takePlace: () => {},
    fail: () => {},
    close: (code: number) => void ends.push(code),
  };
  const channel = serveLogs(peer, id, undefined, { store, environments });
  await until(() => told.includes(3));
  become(id, "stopping");
  become(id, "terminated");
  expect(told).toEqual(["running", 1, 2, 3]);
  peer.unsentBytes = 0;
  channel.drain();
  await until(() => ends.length > 0);
  // The second one says that the installation is complete.
  expect(told).toEqual(["running", 1, 2, 3, "running", "stopping", "terminated"]);
  expect(ends).toEqual([1000]);
  channel.closed();
});

test("nothing listens any more when all clients are gone", async () => {
  const id = newEnvironment();
  const clients = [connect(id), connect(id), connect(id)];
  for (const client of clients) await client.next("status_update");
  for (const client of clients) client.socket.close();
  await until(() => sockets.connections.size === 0);
  expect(store.listenedTo).toBe(0);
});
