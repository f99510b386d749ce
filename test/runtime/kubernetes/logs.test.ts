import { afterEach, describe, expect, test } from "bun:test";
import { newId } from "../../../src/lib/ids.ts";
import { createLogger } from "../../../src/lib/logger.ts";
import type { ContainerStatus, KubeEvent, Pod } from "../../../src/runtime/kubernetes/api/objects.ts";
import { environmentPaths } from "../../../src/runtime/kubernetes/api/paths.ts";
import { createKubernetesRuntime } from "../../../src/runtime/kubernetes/kubernetes.ts";
import { stamped } from "../../../src/runtime/kubernetes/logs/podlog.ts";
import { environmentName, namespaceName } from "../../../src/runtime/kubernetes/names.ts";
import { type LogLine, type Runtime, RuntimeUnreachable } from "../../../src/runtime/runtime.ts";
import { listOf, objectsOf, podOf, StandIn, type Stream } from "./stand-in.ts";

const REF = { environmentId: newId(), userId: newId() };
const EVENT: KubeEvent = {
  metadata: { name: "event", namespace: namespaceName(REF.userId), resourceVersion: "2" },
  involvedObject: { kind: "Pod", name: `${environmentName(REF.environmentId)}-1` },
  reason: "Pulled",
  message: "an image",
  lastTimestamp: "2026-01-01T00:00:01Z",
};

const ENDED: Partial<ContainerStatus> = { state: { terminated: { exitCode: 0 } } };
const OVER = { replicas: 0, phase: "Succeeded" };

describe("an environment's log", () => {
  let standIn: StandIn;
  let runtime: Runtime;
  afterEach(async () => {
    await runtime.close();
    await standIn.close();
  });

  /** An environment with a log for each stream that is opened to one. */
  function open(
    request: (url: URL) => object | undefined,
    stream: (url: URL) => ((stream: Stream) => void) | number,
  ): void {
    standIn = new StandIn({ request, stream });
    runtime = createKubernetesRuntime({
      cluster: { connection: standIn.connection },
      log: createLogger({ format: "text", level: "error" }),
    });
  }

  function read(after: string | null = null): Promise<LogLine[]> {
    return Array.fromAsync(runtime.logs(REF, { after, signal: AbortSignal.timeout(20_000) }));
  }

  test("goes on after any line: an event, or a part of one that is longer than is kept", async () => {
    const watch = new TransformStream<string, string>();
    const objects = objectsOf(REF, ENDED, OVER);
    const long = "x".repeat(300 * 1024);
    open(
      ({ pathname, searchParams }) =>
        pathname === "/api/v1/events" && searchParams.has("watch")
          ? new Response(watch.readable)
          : objects.get(pathname),
      (url) => sending(["first", long, "last"], url),
    );
    const reading = runtime.logs(REF, { after: null, signal: AbortSignal.timeout(20_000) });
    const whole: LogLine[] = [];
    for await (const line of reading) {
      if (whole.push(line) > 1) continue;
      const hints = runtime.changes(AbortSignal.timeout(20_000))[Symbol.asyncIterator]();
      void watch.writable.getWriter().write(`${JSON.stringify({ type: "ADDED", object: EVENT })}\n`);
      await hints.next();
    }
    expect(whole.map(({ message }) => message.replace(/^x+$/, "x"))).toEqual([
      "first",
      "Pulled: an image",
      ...Array<string>(16).fill("x"),
      "[the rest of this line is too long to be shown]",
      "last",
    ]);
    for (const [index, { cursor }] of whole.entries()) {
      expect(await read(cursor)).toEqual(whole.slice(index + 1));
    }
  });

  const shown = (lines: LogLine[]) => lines.map(({ message }) => message);

  test("shows nothing of what separates marks", async () => {
    const objects = objectsOf(REF, ENDED, OVER);
    open(
      ({ pathname }) => objects.get(pathname),
      (url) => sending(["one\x1etwo", "\x1edevpocket other done 0", "\x1e", "end"], url),
    );
    const whole = await read();
    expect(shown(whole)).toEqual(["one", "two", "devpocket other done 0", "", "end"]);
    for (const [index, { cursor }] of whole.entries()) {
      expect(await read(cursor)).toEqual(whole.slice(index + 1));
    }
  });

  test.each([401, 403, 429, 500, 503])(
    "that can't be opened (%d) is no log that was read",
    async (status) => {
      const objects = objectsOf(REF, ENDED, OVER);
      let refused = false;
      open(
        ({ pathname }) => objects.get(pathname),
        (url) => {
          const answer = refused ? sending(["first"], url) : status;
          refused = true;
          return answer;
        },
      );
      expect(await read().catch((error: unknown) => error)).toBeInstanceOf(RuntimeUnreachable);
      expect(shown(await read())).toEqual(["first"]);
    },
  );

  test.each([400, 404])("that is not there any more (%d) is over", async (status) => {
    const objects = objectsOf(REF, ENDED, OVER);
    open(
      ({ pathname }) => objects.get(pathname),
      () => status,
    );
    expect(await read()).toEqual([]);
  });

  test("goes on where its connection was cut, though its container has ended", async () => {
    const objects = objectsOf(REF, ENDED, OVER);
    let opened = 0;
    open(
      ({ pathname }) => objects.get(pathname),
      (url) =>
        opened++ === 0
          ? sending(["first"], url, (stream) => stream.terminate())
          : sending(["first", "last"], url),
    );
    expect(shown(await read())).toEqual(["first", "last"]);
  });

  const terminated = { exitCode: 1 };
  test.each<[string, ContainerStatus["state"], string[]]>([
    ["waits to be started again", { waiting: { reason: "CrashLoopBackOff" } }, ["run 1"]],
    ["has ended again", { terminated }, ["run 0", "run 1"]],
  ])("has each run once while the container %s", async (_, state = {}, expected) => {
    const objects = objectsOf(REF, { state, lastState: { terminated }, restartCount: 1 }, OVER);
    const last = state.waiting ? "run 1" : "run 0";
    open(
      ({ pathname }) => objects.get(pathname),
      (url) => sending([url.searchParams.get("previous") === "true" ? last : "run 1"], url),
    );
    expect(shown(await read())).toEqual(expected);
  });

  /**
   * An environment's pods, made a minute apart, of the first of which the cluster says `state`; what of the
   * list it still has can be changed.
   */
  function openWithPods(state: ContainerStatus["state"] = {}, restartCount = 0): Pod[] {
    const first = podOf(REF, { state, lastState: { terminated }, restartCount }, "Failed");
    const pods = [first, podOf(REF, ENDED, OVER.phase), podOf(REF, ENDED, OVER.phase)].map((pod, index) => {
      const creationTimestamp = `2026-01-01T00:0${index}:00Z`;
      const metadata = { ...pod.metadata, name: `pod-${index}`, uid: `p${index}`, creationTimestamp };
      return { ...pod, metadata };
    });
    const objects = objectsOf(REF, ENDED, OVER);
    const { pods: path } = environmentPaths(REF);
    open(
      ({ pathname }) => (pathname === path ? listOf(pods) : objects.get(pathname)),
      (url) => {
        const name = url.pathname.split("/").at(-2) ?? "";
        return sending([url.searchParams.get("previous") === "true" ? `${name}, before` : name], url);
      },
    );
    return pods;
  }

  const running = { startedAt: "2026-01-01T00:00:00Z" };

  test("goes on with the next pod after one that is over, though its container is said to run", async () => {
    openWithPods({ running }, 1);
    expect(shown(await read())).toEqual(["pod-0, before", "pod-0", "pod-1", "pod-2"]);
  });

  test("has nothing again of a pod from before the one where it goes on, be that one gone or not", async () => {
    const pods = openWithPods({ terminated });
    const whole = await read();
    expect(shown(whole)).toEqual(["pod-0", "pod-1", "pod-2"]);
    for (const [index, { cursor }] of whole.entries()) {
      expect(await read(cursor)).toEqual(whole.slice(index + 1));
    }
    pods.splice(1, 1);
    expect(await read(whole[1]?.cursor)).toEqual(whole.slice(2));
  });
});

/** A log file of these lines, a second apart, as kubelet sends it. */
function sending(
  texts: string[],
  url: URL,
  end: (stream: Stream) => void = (stream) => stream.close(1000),
): (stream: Stream) => void {
  const sinceMs = Date.parse(url.searchParams.get("sinceTime") ?? "1970-01-01T00:00:00Z");
  const lines = texts.map((text, index) => `2026-01-01T00:00:0${index}.000000000Z ${text}\n`);
  return (stream) => {
    for (const line of lines) {
      if (stamped(line).atNs >= BigInt(sinceMs) * 1_000_000n) stream.send(Buffer.from(line));
    }
    end(stream);
  };
}
