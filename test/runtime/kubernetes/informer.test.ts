import { afterEach, describe, expect, test } from "bun:test";
import type { LogFields } from "../../../src/lib/logger.ts";
import { createKubeClient } from "../../../src/runtime/kubernetes/api/client.ts";
import { INFORMER_LIMITS, startInformer } from "../../../src/runtime/kubernetes/watch/informer.ts";
import { until } from "../../until.ts";
import { listOf, StandIn } from "./stand-in.ts";

const PATH = "/api/v1/pods";
const HEALTHY_MS = 30;
const LIMITS = { ...INFORMER_LIMITS, healthyMs: HEALTHY_MS, backoff: { baseMs: 10, maxMs: 2_000 } };

const event = (type: string, object: object) => `${JSON.stringify({ type, object })}\n`;
const POD = { metadata: { name: "p", resourceVersion: "2" } };
const GONE = event("ERROR", { code: 410, reason: "Expired" });
const FAULT = event("ERROR", { code: 500, reason: "InternalError" });

/** Tells `text` and ends, after `lastsMs`. */
const told = (text: string, lastsMs = 0) =>
  new ReadableStream<string>({
    async start(controller) {
      if (lastsMs > 0) await Bun.sleep(lastsMs);
      controller.enqueue(text);
      controller.close();
    },
  });

describe("an informer", () => {
  let ended: AbortController;
  let standIn: StandIn;
  afterEach(() => {
    ended.abort();
    return standIn.close();
  });

  /** Each failure's number; the watches go one after another as told, then the last one again and again. */
  function follow(...watches: (() => ReadableStream<string>)[]): number[] {
    ended = new AbortController();
    const failures: number[] = [];
    let asked = 0;
    standIn = new StandIn({
      request({ searchParams }) {
        if (!searchParams.has("watch")) return listOf([]);
        return new Response(watches[Math.min(asked++, watches.length - 1)]?.());
      },
    });
    const note = (_: string, fields?: LogFields) => failures.push(Number(fields?.failures));
    startInformer(
      {
        client: createKubeClient(standIn.connection),
        path: PATH,
        query: {},
        log: { debug: note, info() {}, warn() {}, error() {} },
        signal: ended.signal,
        limits: LIMITS,
      },
      { replaced() {}, changed() {}, gone() {} },
    );
    return failures;
  }

  test.each([
    ["is told that its position is gone", GONE],
    ["is told of a fault", FAULT],
    ["ends at once", ""],
    ["ends at once after an event", event("ADDED", POD)],
  ])("asks less and less often while every watch %s", async (_, text) => {
    const begunAt = performance.now();
    const failures = follow(() => told(text));
    await until(() => failures.length === 6);
    expect(failures).toEqual([1, 2, 3, 4, 5, 6]);
    // The certain half of each pause.
    expect(performance.now() - begunAt).toBeGreaterThan(5 + 10 + 20 + 40 + 80);
  });

  test.each([
    ["an end", ""],
    ["an error", GONE],
  ])("begins to count anew after a watch that has lasted until %s", async (_, text) => {
    const lasting = () => told(text, 2 * HEALTHY_MS);
    const failures = follow(
      () => told(FAULT),
      () => told(FAULT),
      lasting,
      () => told(FAULT),
    );
    await until(() => failures.length >= 4);
    expect(failures.slice(0, 4)).toEqual([1, 2, 1, 2]);
  });
});
