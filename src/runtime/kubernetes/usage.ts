import { parseBytes, parseCpuMillis } from "../../lib/quantity.ts";
import { Semaphore } from "../../lib/semaphore.ts";
import { RuntimeUnreachable, type Usage } from "../runtime.ts";
import { EXTEND_PATH } from "../startup.ts";
import type { KubeClient } from "./api/client.ts";
import { KubeStatusError } from "./api/errors.ts";
import { type ExecTarget, runCommand } from "./api/exec.ts";
import { type Claim, type Pod, timeMs } from "./api/objects.ts";
import { WORKSPACE } from "./manifests/manifests.ts";
import { CONTAINER } from "./names.ts";
import { Walk } from "./walk.ts";

const METRICS_API = "/apis/metrics.k8s.io/v1beta1";
const METRICS_TIMEOUT_MS = 5_000;
/** One that is not there or does not work is asked again after this time. */
const METRICS_RECHECK_MS = 300_000;
/** Walking workspaces' files: so many at once in a cluster. */
const WALKS_AT_ONCE = 2;
/** The counters move in ticks: over less time a rate would be noise. */
const CPU_RATE_LEAST_SECONDS = 0.5;
/** How long the readings of a container that nobody asks for any more are kept. */
const FORGET_AFTER_MS = 300_000;

/**
 * Prints what a container can tell of itself, in sections. The counters are its own cgroup's, of version 2
 * or 1. The second reading is for a rate at once, where no earlier one is known.
 */
const READ = `${EXTEND_PATH}
cpu() {
  read -r up rest </proc/uptime
  echo "@cpu $up"
  cat /sys/fs/cgroup/cpu.stat 2>/dev/null || cat /sys/fs/cgroup/cpuacct/cpuacct.usage 2>/dev/null ||
    cat /sys/fs/cgroup/cpu,cpuacct/cpuacct.usage 2>/dev/null
}
cpu
echo @memory
cat /sys/fs/cgroup/memory.current 2>/dev/null || cat /sys/fs/cgroup/memory/memory.usage_in_bytes 2>/dev/null
echo @memory-stat
cat /sys/fs/cgroup/memory.stat 2>/dev/null || cat /sys/fs/cgroup/memory/memory.stat 2>/dev/null
echo @net
cat /proc/net/dev 2>/dev/null
echo @df
df -Pk ${WORKSPACE} 2>/dev/null
if [ "$1" = twice ]; then sleep 1; cpu; fi
exit 0`;

interface CpuSample {
  /** Of the node's clock since its start. */
  atSeconds: number;
  usedSeconds: number;
}

export interface UsageReading {
  cpu: CpuSample[];
  memoryBytes: number | null;
  networkRxBytes: number | null;
  networkTxBytes: number | null;
  filesystem: { totalBytes: number; usedBytes: number } | null;
}

/** Reads what READ has printed. */
export function parseUsage(text: string): UsageReading {
  const cpu: CpuSample[] = [];
  const sections = new Map<string, string>();
  for (const section of text.split(/^@/m).slice(1)) {
    const [heading = "", ...lines] = section.split("\n");
    const [name = "", argument = ""] = heading.split(" ");
    if (name !== "cpu") sections.set(name, lines.join("\n"));
    else {
      const usedSeconds = cpuSeconds(lines.join("\n"));
      if (usedSeconds !== null) cpu.push({ atSeconds: Number(argument), usedSeconds });
    }
  }
  const [rx, tx] = networkCounters(sections.get("net") ?? "");
  return {
    cpu,
    memoryBytes: workingSet(sections.get("memory") ?? "", sections.get("memory-stat") ?? ""),
    networkRxBytes: rx,
    networkTxBytes: tx,
    filesystem: filesystemOf(sections.get("df") ?? ""),
  };
}

function cpuSeconds(text: string): number | null {
  const microseconds = /^usage_usec (\d+)/m.exec(text)?.[1];
  if (microseconds !== undefined) return Number(microseconds) / 1e6;
  const nanoseconds = /^(\d+)\s*$/.exec(text)?.[1];
  return nanoseconds === undefined ? null : Number(nanoseconds) / 1e9;
}

/** What can't be given back at once: as kubelet counts it, without files that are only cached. */
function workingSet(current: string, stat: string): number | null {
  const used = /^(\d+)/.exec(current)?.[1];
  if (used === undefined) return null;
  const cached = /^(?:total_)?inactive_file (\d+)/m.exec(
    stat.replace(/^inactive_file .*\n(?=[\s\S]*^total_inactive_file)/m, ""),
  );
  return Math.max(0, Number(used) - Number(cached?.[1] ?? 0));
}

function networkCounters(text: string): [number | null, number | null] {
  let [rx, tx, found] = [0, 0, false];
  for (const [, name, counters = ""] of text.matchAll(/^\s*([^\s:]+):\s*(.*)$/gm)) {
    if (name === "lo") continue;
    const values = counters.split(/\s+/).map(Number);
    rx += values[0] ?? 0;
    tx += values[8] ?? 0;
    found = true;
  }
  return found ? [rx, tx] : [null, null];
}

function filesystemOf(text: string): UsageReading["filesystem"] {
  const match = /\s(\d+)\s+(\d+)\s+\d+\s+\d+%\s/.exec(text);
  return match ? { totalBytes: Number(match[1]) * 1024, usedBytes: Number(match[2]) * 1024 } : null;
}

/** Whether the filesystem is the volume's own, and not the node's disk or a share of many. */
export function isOwnFilesystem(totalBytes: number, volumeBytes: number): boolean {
  return totalBytes > volumeBytes * 0.7 && totalBytes < volumeBytes * 1.2;
}

export interface UsageReader {
  read(pod: Pod, claim: Claim | null): Promise<Usage>;
}

/** What is kept of a container from one reading to the next. */
interface Known {
  readAtMs: number;
  cpu: { sample: CpuSample; rate: number | null } | null;
  walk: Walk;
}

/** Measures environments; keeps what a rate needs from one reading to the next. */
export function createUsageReader(client: KubeClient, now: () => number): UsageReader {
  const containers = new Map<string, Known>();
  const turns = new Semaphore(WALKS_AT_ONCE);
  let metrics: { until: number; works: boolean } = { until: 0, works: false };

  function knownOf(key: string): Known {
    // Containers come and go.
    for (const [other, { readAtMs }] of containers) {
      if (now() - readAtMs >= FORGET_AFTER_MS) containers.delete(other);
    }
    const known = containers.get(key) ?? { readAtMs: 0, cpu: null, walk: new Walk() };
    known.readAtMs = now();
    containers.set(key, known);
    return known;
  }

  /** Null where there is no metrics API, or none that works: the container itself can tell nearly as well. */
  async function fromMetricsApi({ metadata }: Pod) {
    if (metrics.until > now() && !metrics.works) return null;
    try {
      if (metrics.until <= now()) {
        const found = await client.get(METRICS_API, { timeoutMs: METRICS_TIMEOUT_MS });
        metrics = { until: now() + METRICS_RECHECK_MS, works: found !== null };
        if (!found) return null;
      }
      const path = `${METRICS_API}/namespaces/${metadata.namespace}/pods/${metadata.name}`;
      return usageOf(await client.get<PodMetrics>(path, { timeoutMs: METRICS_TIMEOUT_MS }));
    } catch (error) {
      if (!(error instanceof KubeStatusError || error instanceof RuntimeUnreachable)) throw error;
      metrics = { until: now() + METRICS_RECHECK_MS, works: false };
      return null;
    }
  }

  async function readContainer(target: ExecTarget, { cpu }: Known): Promise<UsageReading> {
    const command = ["/bin/sh", "-c", READ, "sh", cpu ? "-" : "twice"];
    const { stdout } = await runCommand(client.connection, target, command);
    return parseUsage(stdout);
  }

  return {
    async read(pod, claim) {
      const status = pod.status?.containerStatuses?.find(({ name }) => name === CONTAINER);
      const { namespace = "", name = "", uid } = pod.metadata;
      const target = { namespace, pod: name, container: CONTAINER };
      const known = knownOf(`${uid}/${status?.restartCount}`);
      const [measured, reading] = await Promise.all([fromMetricsApi(pod), readContainer(target, known)]);
      const rate = cpuRate(known, reading.cpu);
      return {
        cpuMillis: measured?.cpuMillis ?? rate,
        memoryBytes: measured?.memoryBytes ?? reading.memoryBytes,
        storageBytes:
          ownFilesystemBytes(reading, claim) ??
          (await known.walk.bytes(client.connection, target, { turns, now })),
        networkRxBytes: reading.networkRxBytes,
        networkTxBytes: reading.networkTxBytes,
        startedAtMs: timeMs(status?.state?.running?.startedAt) ?? null,
      };
    },
  };
}

/** Millicores since the last reading; it remembers this one. */
function cpuRate(known: Known, samples: CpuSample[]): number | null {
  const sample = samples.at(-1);
  if (!sample) return null;
  const before = known.cpu?.sample ?? samples[0] ?? sample;
  const seconds = sample.atSeconds - before.atSeconds;
  if (seconds < CPU_RATE_LEAST_SECONDS) return known.cpu?.rate ?? null;
  const rate = Math.max(0, Math.round(((sample.usedSeconds - before.usedSeconds) / seconds) * 1000));
  known.cpu = { sample, rate };
  return rate;
}

/** Null where the volume has none of its own. */
function ownFilesystemBytes({ filesystem }: UsageReading, claim: Claim | null): number | null {
  const volumeBytes = parseBytes(claim?.status?.capacity?.storage ?? "") ?? 0;
  return filesystem && isOwnFilesystem(filesystem.totalBytes, volumeBytes) ? filesystem.usedBytes : null;
}

function usageOf(found: PodMetrics | null) {
  const usage = found?.containers?.find(({ name }) => name === CONTAINER)?.usage;
  if (!usage) return null;
  return {
    cpuMillis: parseCpuMillis(usage.cpu ?? "") ?? null,
    memoryBytes: parseBytes(usage.memory ?? "") ?? null,
  };
}

interface PodMetrics {
  metadata: object;
  containers?: { name: string; usage?: Record<string, string> }[];
}
