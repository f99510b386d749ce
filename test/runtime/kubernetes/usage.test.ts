import { afterEach, describe, expect, test } from "bun:test";
import { newId } from "../../../src/lib/ids.ts";
import { createLogger } from "../../../src/lib/logger.ts";
import { environmentPaths } from "../../../src/runtime/kubernetes/api/paths.ts";
import { createKubernetesRuntime } from "../../../src/runtime/kubernetes/kubernetes.ts";
import { isOwnFilesystem, parseUsage } from "../../../src/runtime/kubernetes/usage.ts";
import type { Runtime } from "../../../src/runtime/runtime.ts";
import { objectsOf, printing, StandIn, type Stream } from "./stand-in.ts";

const NET = `Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     900      10    0    0    0     0          0         0      900      10    0    0    0     0       0          0
  eth0:    1000      10    0    0    0     0          0         0     2000      11    0    0    0     0       0          0
`;
describe("what a container tells of itself", () => {
  test("with cgroup version 2: what Linux 6.1 gave a busy loop with 0.3 CPUs, 40 MiB in a tmpfs and 20 MiB cached", () => {
    const text = `@cpu 6.81
usage_usec 1228474
user_usec 965807
system_usec 262667
nr_periods 41
nr_throttled 40
throttled_usec 2769812
nr_bursts 0
burst_usec 0
@memory
63700992
@memory-stat
anon 212992
file 62918656
kernel 458752
shmem 41943040
file_mapped 0
file_dirty 0
file_writeback 0
anon_thp 0
file_thp 0
inactive_anon 42094592
active_anon 12288
inactive_file 20971520
active_file 4096
slab_reclaimable 185168
slab_unreclaimable 68792
slab 253960
workingset_refault_anon 0
workingset_refault_file 0
@net
${NET}@df
Filesystem           1024-blocks    Used Available Capacity Mounted on
/dev/vda                 56037     20494     30957  40% /workspace
@cpu 8.20
usage_usec 1630164
user_usec 1331569
system_usec 298594
nr_periods 55
nr_throttled 54
throttled_usec 3744153
nr_bursts 0
burst_usec 0
`;
    expect(parseUsage(text)).toEqual({
      cpu: [
        { atSeconds: 6.81, usedSeconds: 1.228474 },
        { atSeconds: 8.2, usedSeconds: 1.630164 },
      ],
      memoryBytes: 63700992 - 20971520,
      networkRxBytes: 1000,
      networkTxBytes: 2000,
      filesystem: { totalBytes: 56037 * 1024, usedBytes: 20494 * 1024 },
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
