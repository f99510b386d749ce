import { heapStats } from "bun:jsc";
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { createLogRoutes } from "../../src/environments/log-routes.ts";
import { createLogStreams, eventStream } from "../../src/environments/log-streams.ts";
import type { HttpEnv, SocketHandlers } from "../../src/http/context.ts";
import { answerError } from "../../src/http/errors.ts";
import { newRouter } from "../../src/http/router.ts";
import { createLogger } from "../../src/lib/logger.ts";
import { follow } from "../../src/logs/follow.ts";
import { createLogStore } from "../../src/logs/store.ts";
import { line, lines, openLogDatabase } from "../logs/environment.ts";
import { until } from "../until.ts";
import { type LogEvent, openEvents } from "./events.ts";

const database = openLogDatabase();
const store = createLogStore(database.db);
const ended = new Set<string>();
const streams = createLogStreams({ perUser: 3, sessionLives: (id) => !ended.has(id) });
const stopping = new AbortController();
/** What is to be told that an environment is no more. */
const deletions = new Map<string, () => void>();
let server: Bun.Server<SocketHandlers>;

/** The real routes on a real server; who asks is said by headers. */
beforeAll(() => {
  const app = newRouter();
  app.onError(answerError(createLogger({ format: "text", level: "error" })));
  app.route(
    "/",
    createLogRoutes({
      store,
      streams,
      stopping: stopping.signal,
      owned: (id, userId) => (userId === "ada" ? { id, name: "my-env" } : undefined),
      watchDeletion(id, deleted) {
        deletions.set(id, deleted);
        return () => deletions.delete(id);
      },
      async requireActor(c, next) {
        c.set("actor", {
          userId: c.req.header("x-user") ?? "ada",
          sessionId: c.req.header("x-session") ?? "one",
          username: "ada",
          email: "a@b.c",
          role: "user",
          plan: "free",
          isVerified: true,
        });
        await next();
      },
    }),
  );
  server = Bun.serve<SocketHandlers>({
    port: 0,
    fetch: (request, bun) => app.fetch(request, { server: bun } satisfies HttpEnv["Bindings"]),
    websocket: { message() {} },
  });
});
afterAll(async () => {
  await server.stop(true);
  database[Symbol.dispose]();
});

function url(environmentId: string, query = ""): string {
  return `${server.url.origin}/api/v1/environments/${environmentId}/logs${query}`;
}

interface LogsAnswer {
  environment_id: string;
  environment_name: string;
  logs: LogEvent["data"][];
  total_lines: number;
  has_more: boolean;
}

async function getLogs(environmentId: string, query = ""): Promise<LogsAnswer> {
  const response = await fetch(url(environmentId, query));
  expect(response.status).toBe(200);
  return (await response.json()) as LogsAnswer;
}

function openStream(environmentId: string, query = "", headers: Record<string, string> = {}) {
  return openEvents(url(environmentId, `?follow=true${query}`), headers);
}

describe("the log as JSON", () => {
  test("is its last hundred lines, oldest first, in the shape of the reference", async () => {
    const id = database.newEnvironment();
    store.append(id, lines(1, 150, { level: "DEBUG" }));
    const answer = await getLogs(id);
    expect(answer).toMatchObject({
      environment_id: id,
      environment_name: "my-env",
      total_lines: 150,
      has_more: true,
    });
    expect(answer.logs).toHaveLength(100);
    expect(answer.logs[99]).toEqual({
      timestamp: "2023-11-14T22:13:20.150Z",
      level: "DEBUG",
      message: "line 150",
      source: "application",
      offset: 150,
    });
  });

  test.each([
    ["?lines=3", 3, 20],
    ["?lines=1000", 20, 20],
    ["?since=2023-11-14T22:13:20.016Z", 5, 5],
    ["?since=2023-11-14T23:13:20.016%2B01:00&lines=2", 2, 5],
    ["?since=2023-11-14T23:13:20.016+01:00", 5, 5],
    ["?since=2023-11-14", 20, 20],
    ["?since=2024-01-01T00:00:00Z", 0, 0],
    ["?since_offset=20", 0, 0],
    ["?since_offset=99999", 0, 0],
    ["?since_offset=5&lines=4", 4, 15],
  ])("with %p has %p lines of %p", async (query, returned, total) => {
    const id = database.newEnvironment();
    store.append(id, lines(1, 20));
    const answer = await getLogs(id, query);
    expect(answer.logs).toHaveLength(returned);
    expect(answer.total_lines).toBe(total);
    expect(answer.has_more).toBe(returned < total);
  });

  test("can be read from its beginning to its end, gap and all, by since_offset", async () => {
    const id = database.newEnvironment();
    for (let n = 1; n <= 12_000; n += 500) {
      store.append(id, lines(n, n + 499, { message: "x".repeat(1023) }));
    }
    const all: LogsAnswer["logs"] = [];
    for (let more = true; more; ) {
      const answer = await getLogs(id, `?lines=1000&since_offset=${all.at(-1)?.offset ?? 0}`);
      all.push(...answer.logs);
      expect(answer.total_lines - answer.logs.length > 0).toBe(answer.has_more);
      more = answer.has_more;
    }
    const gap = all.filter(({ source }) => source === "system");
    expect(gap).toHaveLength(1);
    expect(all.length - 1 + Number(/\d+/.exec(gap[0]?.message ?? "")?.[0])).toBe(12_000);
    expect((await getLogs(id, "?lines=1")).total_lines).toBe(all.length);
  });

  test.each([
    "lines=0",
    "lines=1001",
    "lines=x",
    "lines=",
    "since=yesterday",
    "since=2024-02-30",
    "since_offset=-1",
    "follow=maybe",
  ])("is refused with 422 for %p", async (query) => {
    const response = await fetch(url(database.newEnvironment(), `?${query}`));
    expect(response.status).toBe(422);
    expect(await response.json()).toMatchObject({
      detail: "Request validation failed",
      errors: [{ field: query.split("=")[0] }],
    });
  });

  test.each(["", "?follow=true"])("of someone else's environment is not found (%p)", async (query) => {
    const response = await fetch(url(database.newEnvironment(), query), { headers: { "x-user": "bob" } });
    expect(response.status).toBe(404);
  });
});

describe("the log as a stream", () => {
  test("begins with the last lines and goes on with those that come", async () => {
    const id = database.newEnvironment();
    store.append(id, lines(1, 10));
    const stream = await openStream(id, "&lines=2");
    expect(stream.response.headers.get("content-type")).toBe("text/event-stream");
    await until(() => stream.events.length === 2);
    store.append(id, [line(11)]);
    store.appendSystem(id, { message: "Stopping", generation: 1 });
    await until(() => stream.events.length === 4);
    expect(stream.events.map((event) => event.id)).toEqual([9, 10, 11, 12]);
    expect(stream.events[3]?.data).toMatchObject({ message: "Stopping", source: "system", offset: 12 });
    stream.close();
    await until(() => streams.size === 0);
  });

  test.each([
    ["Last-Event-ID", "&lines=1&since_offset=2", { "last-event-id": "7" }, 8],
    ["since_offset", "&lines=1&since_offset=7", {}, 8],
    ["a Last-Event-ID that is none of ours", "&since_offset=7", { "last-event-id": "abc" }, 8],
  ])("goes on after %s", async (_, query, headers, first) => {
    const id = database.newEnvironment();
    store.append(id, lines(1, 10));
    const stream = await openStream(id, query, { ...headers });
    await until(() => stream.events.length === 10 - first + 1);
    expect(stream.events[0]?.id).toBe(first);
    stream.close();
    await until(() => streams.size === 0);
  });

  test("that is cut again and again gives every line once and in order", async () => {
    const id = database.newEnvironment();
    const total = 5000;
    let written = 0;
    const writer = setInterval(() => {
      const count = Math.min(total - written, 40);
      store.append(id, lines(written + 1, written + count));
      written += count;
      if (written === total) clearInterval(writer);
    }, 2);
    const got: number[] = [];
    let cuts = 0;
    while (got.length < total) {
      const stream = await openStream(id, "&since_offset=0", { "last-event-id": String(got.at(-1) ?? 0) });
      const enough = Math.min(total - got.length, 1 + Math.floor(Math.random() * 300));
      await until(() => stream.events.length >= enough, { intervalMs: 1 });
      stream.close();
      got.push(...stream.events.splice(0).map((event) => event.id));
      cuts++;
    }
    expect(cuts).toBeGreaterThan(10);
    expect(got).toEqual(Array.from({ length: total }, (_, index) => index + 1));
    await until(() => streams.size === 0);
  });

  test("costs nothing while its client does not read, who is then told what was dropped", async () => {
    const id = database.newEnvironment();
    const message = "x".repeat(1023);
    let paused = true;
    let text = "";
    const socket = await Bun.connect({
      hostname: "127.0.0.1",
      port: Number(server.url.port),
      socket: {
        open(open) {
          open.write(`GET ${new URL(url(id)).pathname}?follow=1&since_offset=0 HTTP/1.1\r\nHost: x\r\n\r\n`);
        },
        data(open, bytes) {
          text += bytes.toString("latin1");
          if (paused) open.pause();
        },
      },
    });
    await until(() => text.includes("retry:"));
    const total = 30 * 1024;
    for (let n = 1; n <= total; n += 256) {
      store.append(id, lines(n, n + 255, { message }));
      await Bun.sleep(0);
    }
    paused = false;
    socket.resume();
    await until(() => text.includes(`id: ${total}\n`));
    socket.terminate();
    const ids = [...text.matchAll(/\nid: (\d+)\n/g)].map(([, number]) => Number(number));
    const missing = [...text.matchAll(/(\d+) lines? (?:is|are) missing here/g)].map(([, n]) => Number(n));
    expect(missing.length).toBeGreaterThan(0);
    expect(ids.length - missing.length + missing.reduce((sum, n) => sum + n, 0)).toBe(total);
    expect(ids).toEqual([...new Set(ids)].sort((a, b) => a - b));
    await until(() => streams.size === 0);
  });

  test("ends when its sign-in session does, and those of other sessions go on", async () => {
    const id = database.newEnvironment();
    const first = await openStream(id, "", { "x-session": "one" });
    const second = await openStream(id, "", { "x-session": "two" });
    streams.endSession("one");
    await first.ended;
    expect(streams.size).toBe(1);
    store.append(id, [line(1)]);
    await until(() => second.events.length === 1);
    second.close();
    await until(() => streams.size === 0);
  });

  test("ends at its next word when another process has ended its sign-in session", async () => {
    const id = database.newEnvironment();
    const first = await openStream(id, "", { "x-session": "one" });
    const second = await openStream(id, "", { "x-session": "two" });
    ended.add("one");
    store.append(id, [line(1)]);
    await first.ended;
    expect(first.events).toEqual([]);
    await until(() => second.events.length === 1);
    second.close();
    await until(() => streams.size === 0);
    ended.clear();
  });

  test("is refused when the user has too many, until one of them ends", async () => {
    const id = database.newEnvironment();
    const open = [await openStream(id), await openStream(id), await openStream(id)];
    expect((await openStream(id)).response.status).toBe(429);
    open[0]?.close();
    await until(() => streams.size === 2);
    const again = await openStream(id);
    expect(again.response.status).toBe(200);
    for (const stream of [...open, again]) stream.close();
    await until(() => streams.size === 0);
  });

  test("says now and then that it is there, until its sign-in session ends", async () => {
    const end = new AbortController();
    let signedIn = true;
    const silent = (async function* () {
      await new Promise((resolve) => end.signal.addEventListener("abort", resolve));
    })();
    const reader = eventStream(
      silent,
      () => "",
      end,
      () => signedIn,
      1,
    ).getReader();
    const texts: string[] = [];
    while (texts.length < 4) texts.push(new TextDecoder().decode((await reader.read()).value));
    expect(texts).toEqual(["retry: 1000\n\n", ":\n\n", ":\n\n", ":\n\n"]);
    signedIn = false;
    expect((await reader.read()).done).toBeTrue();
    expect(end.signal.aborted).toBeTrue();
  });

  test("remembers nothing of the comments that it has sent while it waits", async () => {
    const end = new AbortController();
    const silent = (async function* () {
      await new Promise((resolve) => end.signal.addEventListener("abort", resolve));
    })();
    const stream = eventStream(
      silent,
      () => "",
      end,
      () => true,
      0,
    );
    const reader = stream.getReader();
    const comments = async (count: number): Promise<number> => {
      for (let n = 0; n < count; n++) await reader.read();
      Bun.gc(true);
      return heapStats().objectTypeCounts.Promise ?? 0;
    };
    const before = await comments(100);
    expect((await comments(1000)) - before).toBeLessThan(500);
    end.abort();
  });

  test("ends with its environment, after its last lines", async () => {
    const id = database.newEnvironment();
    store.append(id, lines(1, 2));
    const stream = await openStream(id);
    await until(() => stream.events.length === 2);
    store.append(id, lines(3, 1000));
    deletions.get(id)?.();
    await stream.ended;
    expect(stream.events.length).toBe(1000);
    expect([streams.size, deletions.size]).toEqual([0, 0]);
  });

  test.each(["client", "session"])(
    "leaves nothing behind when its %s ends between two batches",
    async (by) => {
      const id = database.newEnvironment();
      store.append(id, lines(1, 1000));
      const end = new AbortController();
      const before = store.listenedTo;
      const batches = follow(store, id, { after: 0, signal: end.signal });
      const reader = eventStream(
        batches,
        () => "",
        end,
        () => true,
      ).getReader();
      await reader.read();
      await reader.read();
      expect(store.listenedTo).toBe(before + 1);
      if (by === "client") await reader.cancel();
      else end.abort();
      await until(() => store.listenedTo === before);
    },
  );

  test("is over when the log can't be read", async () => {
    const end = new AbortController();
    const broken = (async function* () {
      yield* await Promise.reject<never[]>(new Error("the disk is broken"));
    })();
    const reader = eventStream(
      broken,
      () => "",
      end,
      () => true,
    ).getReader();
    await reader.read();
    await expect(reader.read()).rejects.toThrow("the disk is broken");
    expect(end.signal.aborted).toBeTrue();
  });

  test("ends when the server stops", async () => {
    const stream = await openStream(database.newEnvironment());
    stopping.abort();
    await stream.ended;
    expect(streams.size).toBe(0);
  });
});
