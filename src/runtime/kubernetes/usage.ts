import { parseBytes, parseCpuMillis } from "../../lib/quantity.ts";
import type { Usage } from "../runtime.ts";
import type { KubeClient } from "./client.ts";
import { KubeStatusError } from "./errors.ts";
import { runCommand } from "./exec.ts";
import { WORKSPACE } from "./manifests.ts";
import { CONTAINER } from "./names.ts";
import { type Claim, type Pod, timeMs } from "./objects.ts";

const METRICS_API = "/apis/metrics.k8s.io/v1beta1";
const METRICS_RECHECK_MS = 300_000;
/** Walking a workspace's files is work for the node: not more often than this. */
const STORAGE_FRESH_MS = 60_000;
/** The counters move in ticks: over less time a rate would be noise. */
const CPU_RATE_LEAST_SECONDS = 0.5;
/** How long the readings of a container that nobody asks for any more are kept. */
const FORGET_AFTER_MS = 300_000;

/**
 * Prints what a container can tell of itself, in sections. The counters are its own cgroup's, of version 2
 * or 1. The second reading is for a rate at once, where no earlier one is known.
 */
const READ = `cpu() {
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
if [ "$1" = du ]; then
  echo @du
  du -skx ${WORKSPACE} 2>/dev/null
fi
if [ "$2" = twice ]; then sleep 1; cpu; fi
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
  filesBytes: number | null;
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
    filesBytes: kibibytes(/^(\d+)\s/.exec(sections.get("du") ?? "")?.[1]),
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

function kibibytes(text: string | undefined): number | null {
  return text === undefined ? null : Number(text) * 1024;
}

/** Whether the filesystem is the volume's own, and not the node's disk or a share of many. */
export function isOwnFilesystem(totalBytes: number, volumeBytes: number): boolean {
  return totalBytes > volumeBytes * 0.7 && totalBytes < volumeBytes * 1.2;
}

export interface UsageReader {
  read(pod: Pod, claim: Claim | null): Promise<Usage>;
}

/** Measures environments; keeps what a rate needs from one reading to the next. */
export function createUsageReader(client: KubeClient, now: () => number): UsageReader {
  const earlier = new Map<string, { sample: CpuSample; rate: number | null }>();
  const storage = new Map<string, { atMs: number; bytes: number | null }>();
  let metrics: { until: number; installed: boolean } = { until: 0, installed: false };

  async function hasMetricsApi(): Promise<boolean> {
    if (metrics.until > now()) return metrics.installed;
    const found = await client.get(METRICS_API).catch((error: unknown) => {
      if (error instanceof KubeStatusError) return null;
      throw error;
    });
    metrics = { until: now() + METRICS_RECHECK_MS, installed: found !== null };
    return metrics.installed;
  }

  function cpuRate(key: string, samples: CpuSample[]): number | null {
    const sample = samples.at(-1);
    if (!sample) return null;
    const known = earlier.get(key);
    const before = known?.sample ?? samples[0] ?? sample;
    const seconds = sample.atSeconds - before.atSeconds;
    if (seconds < CPU_RATE_LEAST_SECONDS) return known?.rate ?? null;
    const rate = Math.max(0, Math.round(((sample.usedSeconds - before.usedSeconds) / seconds) * 1000));
    earlier.set(key, { sample, rate });
    return rate;
  }

  async function fromMetricsApi({ metadata }: Pod) {
    if (!(await hasMetricsApi())) return null;
    const path = `${METRICS_API}/namespaces/${metadata.namespace}/pods/${metadata.name}`;
    const found = await client.get<PodMetrics>(path);
    const usage = found?.containers?.find(({ name }) => name === CONTAINER)?.usage;
    if (!usage) return null;
    const cpuMillis = parseCpuMillis(usage.cpu ?? "") ?? null;
    return { cpuMillis, memoryBytes: parseBytes(usage.memory ?? "") ?? null };
  }

  async function readContainer(pod: Pod, key: string, withFiles: boolean): Promise<UsageReading> {
    const { namespace = "", name = "" } = pod.metadata;
    const command = ["/bin/sh", "-c", READ, "sh", withFiles ? "du" : "-", earlier.has(key) ? "-" : "twice"];
    const { stdout } = await runCommand(
      client.connection,
      { namespace, pod: name, container: CONTAINER },
      command,
    );
    return parseUsage(stdout);
  }

  function storageBytes(key: string, claim: Claim | null, reading: UsageReading): number | null {
    const volumeBytes = parseBytes(claim?.status?.capacity?.storage ?? "") ?? 0;
    if (reading.filesystem && isOwnFilesystem(reading.filesystem.totalBytes, volumeBytes)) {
      return reading.filesystem.usedBytes;
    }
    if (reading.filesBytes !== null) storage.set(key, { atMs: now(), bytes: reading.filesBytes });
    return storage.get(key)?.bytes ?? null;
  }

  return {
    async read(pod, claim) {
      const status = pod.status?.containerStatuses?.find(({ name }) => name === CONTAINER);
      const key = `${pod.metadata.uid}/${status?.restartCount}`;
      forgetStale(key);
      const withFiles = now() - (storage.get(key)?.atMs ?? Number.NEGATIVE_INFINITY) > STORAGE_FRESH_MS;
      const [measured, reading] = await Promise.all([
        fromMetricsApi(pod),
        readContainer(pod, key, withFiles),
      ]);
      const rate = cpuRate(key, reading.cpu);
      return {
        cpuMillis: measured?.cpuMillis ?? rate,
        memoryBytes: measured?.memoryBytes ?? reading.memoryBytes,
        storageBytes: storageBytes(key, claim, reading),
        networkRxBytes: reading.networkRxBytes,
        networkTxBytes: reading.networkTxBytes,
        startedAtMs: timeMs(status?.state?.running?.startedAt) ?? null,
      };
    },
  };

  /** Containers come and go; what is kept of one is bounded by its last readings. */
  function forgetStale(current: string): void {
    for (const [key, { atMs }] of storage) {
      if (key === current || now() - atMs < FORGET_AFTER_MS) continue;
      storage.delete(key);
      earlier.delete(key);
    }
  }
}

interface PodMetrics {
  metadata: object;
  containers?: { name: string; usage?: Record<string, string> }[];
}
