/*
 * A log server to be killed: collects an endless, counted log from a runtime that breaks off now and then,
 * and serves it. bun server.ts FILE ENVIRONMENT; prints its port.
 */

import { openDatabase } from "../../src/db/open.ts";
import { createLogRoutes } from "../../src/environments/log-routes.ts";
import { createLogStreams } from "../../src/environments/log-streams.ts";
import type { SocketHandlers } from "../../src/http/context.ts";
import { createLogger } from "../../src/lib/logger.ts";
import { createLogCollector } from "../../src/logs/collect.ts";
import { createLogStore } from "../../src/logs/store.ts";
import { RuntimeUnreachable } from "../../src/runtime/runtime.ts";
import { actor } from "../sockets/server.ts";
import { line } from "./environment.ts";

const [file = "", environmentId = ""] = process.argv.slice(2);
const store = createLogStore(openDatabase(file).db);
const routes = createLogRoutes({
  store,
  streams: createLogStreams(),
  stopping: new AbortController().signal,
  owned: (id) => ({ id, name: "my-env" }),
  watchDeletion: () => () => {},
  async requireActor(c, next) {
    c.set("actor", actor());
    await next();
  },
});
const server = Bun.serve<SocketHandlers>({
  port: 0,
  hostname: "127.0.0.1",
  fetch: (request, bun) => routes.fetch(request, { server: bun }),
  websocket: { message() {} },
});
const collector = createLogCollector({
  store,
  runtimeOf: () => ({
    async *logs(_, { after }) {
      for (let n = Number(after ?? 0) + 1; ; n++) {
        if (Math.random() < 1 / 500) throw new RuntimeUnreachable("connection reset");
        yield line(n);
        if (n % 37 === 0) await Bun.sleep(1);
      }
    },
  }),
  log: createLogger({ format: "text", level: "info" }),
  retry: { baseMs: 1, maxMs: 10 },
});
collector.start({ environmentId, userId: "ada" });
process.stdout.write(`${server.port}\n`);
