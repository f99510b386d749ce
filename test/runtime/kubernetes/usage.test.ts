import { afterEach, describe, expect, test } from "bun:test";
import { newId } from "../../../src/lib/ids.ts";
import { createLogger } from "../../../src/lib/logger.ts";
import { createKubernetesRuntime } from "../../../src/runtime/kubernetes/kubernetes.ts";
import { environmentPaths } from "../../../src/runtime/kubernetes/paths.ts";
import { isOwnFilesystem, parseUsage } from "../../../src/runtime/kubernetes/usage.ts";
import type { Runtime } from "../../../src/runtime/runtime.ts";
import { objectsOf, printing, StandIn, type Stream } from "./stand-in.ts";

const NET = `Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     900      10    0    0    0     0          0         0      900      10    0    0    0     0       0          0
  eth0:    1000      10    0    0    0     0          0         0     2000      11    0    0    0     0       0          0
`;
const DF = `Filesystem     1024-blocks    Used Available Capacity Mounted on
/dev/vda1         41152736 2000000  37000000       6% /workspace
`;

describe("what a container tells of itself", () => {
  test("with cgroup version 2", () => {
    const text = `@cpu 100.00 80.00
usage_usec 2500000
user_usec 2000000
@memory
5000
@memory-stat
anon 3000
inactive_file 1200
@net
${NET}@df
${DF}@cpu 101.00 80.00
usage_usec 2750000
`;
    expect(parseUsage(text)).toEqual({
      cpu: [
        { atSeconds: 100, usedSeconds: 2.5 },
        { atSeconds: 101, usedSeconds: 2.75 },
      ],
      memoryBytes: 3800,
      networkRxBytes: 1000,
      networkTxBytes: 2000,
      filesystem: { totalBytes: 41152736 * 1024, usedBytes: 2000000 * 1024 },
    });
  });

  test("with cgroup version 1, whose own and total figures have two names", () => {
    const text = `@cpu 100.00 80.00
2500000000
@memory
5000
@memory-stat
inactive_file 1
hierarchical_memory_limit 1000
total_inactive_file 1200
`;
    expect(parseUsage(text)).toMatchObject({
      cpu: [{ atSeconds: 100, usedSeconds: 2.5 }],
      memoryBytes: 3800,
    });
  });

  test("when it can tell nothing", () => {
    expect(parseUsage("@cpu 1 1\n@memory\n@memory-stat\n@net\n@df\n")).toEqual({
      cpu: [],
      memoryBytes: null,
      networkRxBytes: null,
      networkTxBytes: null,
      filesystem: null,
    });
  });
});

test.each([
  [10, 9.7, true],
  [10, 40, false],
  [10, 1, false],
])("for a volume of %d GiB a filesystem of %d is its own: %p", (volume, total, own) => {
  expect(isOwnFilesystem(total * 2 ** 30, volume * 2 ** 30)).toBe(own);
});

describe("usage", () => {
  const REF = { environmentId: newId(), userId: newId() };
  const RUNNING = { started: true, state: { running: { startedAt: "2026-01-01T00:00:00Z" } } };
  const MIB = 2 ** 20;
  const METRICS = "/apis/metrics.k8s.io/v1beta1";
  const METRICS_OF_POD = `${METRICS}/namespaces/user/pods/env-1`;

  let standIn: StandIn;
  let runtime: Runtime;
  let now = 0;
  const walks: string[] = [];
  const readings: string[] = [];
  afterEach(async () => {
    await runtime.close();
    await standIn.close();
    walks.length = readings.length = 0;
  });

  /** A container in a volume of 40 MiB and a filesystem of `totalMib`. */
  function open({
    totalMib = 40_000,
    walk = printing("300\t/workspace\n"),
    answers = {},
    broken = "",
    restartCount = () => 0,
  }: {
    totalMib?: number;
    walk?: (stream: Stream) => void;
    answers?: Record<string, object>;
    /** A path that is answered with 503. */
    broken?: string;
    restartCount?: () => number;
  } = {}): void {
    const claim = { metadata: {}, spec: {}, status: { capacity: { storage: "40Mi" } } };
    const text = `@cpu 100.00 80.00
usage_usec 2500000
@memory
5000
@df
/dev/vda1 ${totalMib * 1024} 2048 100 6% /workspace
@cpu 101.00 80.00
usage_usec 2750000
`;
    standIn = new StandIn({
      request({ pathname }) {
        if (pathname === broken) return new Response(null, { status: 503 });
        const objects = objectsOf(REF, { ...RUNNING, restartCount: restartCount() });
        return objects.set(environmentPaths(REF).claim, claim).get(pathname) ?? answers[pathname];
      },
      stream({ searchParams }) {
        const command = searchParams.getAll("command");
        const isWalk = command.join(" ").includes("du -");
        (isWalk ? walks : readings).push(command.at(-1) ?? "");
        return isWalk ? walk : printing(text);
      },
    });
    runtime = createKubernetesRuntime({
      cluster: { connection: standIn.connection },
      log: createLogger({ format: "text", level: "error" }),
      now: () => now,
    });
  }

  const metricsAsked = () => standIn.asked.filter((request) => request.includes(METRICS)).length;

  /** Measures at each of these minutes. */
  async function storageAt(...minutes: number[]) {
    const all: (number | null | undefined)[] = [];
    for (const minute of minutes) {
      now = minute * 60_000;
      all.push((await runtime.usage(REF))?.storageBytes);
    }
    return all;
  }

  test("walks no files where the volume has a filesystem of its own", async () => {
    open({ totalMib: 38 });
    expect(await storageAt(0, 2, 4)).toEqual([2 * MIB, 2 * MIB, 2 * MIB]);
    expect(walks.length).toBe(0);
  });

  const failing = (stream: Stream) => stream.close(1001);
  test.each([
    ["have been found", printing("300\t/workspace\n"), 300 * 1024],
    ["could not be walked", failing, null],
    ["took too long", printing("", 124), null],
  ])("walks files that %s not more often than every minute", async (_, walk, bytes) => {
    open({ walk });
    expect(await storageAt(0, 0.5, 0.9)).toEqual([bytes, bytes, bytes]);
    expect(walks.length).toBe(1);
    await storageAt(1.1);
    expect(walks.length).toBe(2);
  });

  test("is measured all the same while a walk goes on, and no second one begins", async () => {
    open({ walk: () => {} });
    expect(await storageAt(0, 2)).toEqual([null, null]);
    expect(walks.length).toBe(1);
  });

  test("keeps nothing of a container that nobody has asked for in a while", async () => {
    let restartCount = 0;
    open({ totalMib: 38, restartCount: () => restartCount });
    await storageAt(0, 1);
    restartCount = 1;
    await storageAt(2, 9);
    restartCount = 0;
    await storageAt(10);
    expect(readings).toEqual(["twice", "-", "twice", "twice", "twice"]);
  });

  const podMetrics = {
    metadata: {},
    containers: [{ name: "environment", usage: { cpu: "10m", memory: "2Ki" } }],
  };
  test.each([
    ["there is one", { [METRICS]: {}, [METRICS_OF_POD]: podMetrics }, 10, 2],
    ["there is none", {}, 250, 1],
    ["it knows nothing of the pod", { [METRICS]: {} }, 250, 2],
  ])("is the metrics API's or the container's when %s", async (_, answers, cpuMillis, asked) => {
    open({ answers });
    expect(await runtime.usage(REF)).toMatchObject({ cpuMillis });
    expect(metricsAsked()).toBe(asked);
  });

  test.each([
    ["itself", METRICS],
    ["about pods", METRICS_OF_POD],
  ])(
    "is the container's while the metrics API is broken %s, which is not asked again at once",
    async (_, broken) => {
      open({ answers: { [METRICS]: {} }, broken });
      expect(await runtime.usage(REF)).toMatchObject({ cpuMillis: 250, memoryBytes: 5000 });
      const asked = metricsAsked();
      await runtime.usage(REF);
      expect(metricsAsked()).toBe(asked);
    },
  );
});
