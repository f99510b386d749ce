import { readFile } from "node:fs/promises";
import { Semaphore } from "../../lib/semaphore.ts";
import type { Usage } from "../runtime.ts";
import { SYSTEM_PATH } from "../startup.ts";
import type { Owned } from "./owned.ts";
import type { Process } from "./processes.ts";

/** CPU is a difference over at least this much. */
const CPU_INTERVAL_MS = 500;
/** Up to so many processes are asked for their share of memory; more only for their resident set. */
const PROPORTIONAL_LIMIT = 64;
const SIZE_KEPT_MS = 60_000;
const SIZE_LIMIT_MS = 20_000;
/** Walking folders: so many at once. */
const SIZES_AT_ONCE = 2;

interface CpuSample {
  atMs: number;
  cpuMs: number;
  /** Which run's processes these are: their counters begin anew with the next one. */
  pid: number;
  cpuMillis: number | null;
}

interface Size {
  atMs: number;
  bytes: number | null;
}

export interface Measured {
  environmentId: string;
  workspace: string;
  pid: number;
  startedAtMs: number;
}

/** Measures environments; remembers the last look at each for differences. */
export class Meter {
  readonly #owned: Owned;
  readonly #cpu = new Map<string, CpuSample>();
  readonly #sizes = new Map<string, Promise<Size>>();
  readonly #walks = new Semaphore(SIZES_AT_ONCE);

  constructor(owned: Owned) {
    this.#owned = owned;
  }

  /**
   * CPU of all processes since the last look (null at the first), memory as their proportional share of what
   * they use (PSS; the resident set where that can't be read, or of very many), the workspace as `du` has
   * it, at most a minute old. The network is the host's: not known.
   */
  async measure({ environmentId, workspace, pid, startedAtMs }: Measured): Promise<Usage> {
    const processes = await this.#owned.recentProcessesOf(environmentId, pid);
    const [memoryBytes, size] = await Promise.all([
      memoryOf(processes),
      this.#sizeOf(environmentId, workspace),
    ]);
    return {
      cpuMillis: this.#cpuOf(environmentId, pid, processes),
      memoryBytes,
      storageBytes: size.bytes,
      networkRxBytes: null,
      networkTxBytes: null,
      startedAtMs,
    };
  }

  forget(environmentId: string): void {
    this.#cpu.delete(environmentId);
    this.#sizes.delete(environmentId);
  }

  #cpuOf(environmentId: string, pid: number, processes: Process[]): number | null {
    const atMs = performance.now();
    const cpuMs = processes.reduce((sum, process) => sum + process.cpuMs, 0);
    const last = this.#cpu.get(environmentId);
    if (last?.pid === pid && atMs - last.atMs < CPU_INTERVAL_MS) return last.cpuMillis;
    // An orphan's time is nobody's once it is gone: the sum may shrink.
    const cpuMillis =
      last?.pid === pid ? Math.round((Math.max(0, cpuMs - last.cpuMs) / (atMs - last.atMs)) * 1000) : null;
    this.#cpu.set(environmentId, { atMs, cpuMs, pid, cpuMillis });
    return cpuMillis;
  }

  async #sizeOf(environmentId: string, workspace: string): Promise<Size> {
    const known = this.#sizes.get(environmentId);
    if (known) {
      const size = await known;
      if (performance.now() - size.atMs < SIZE_KEPT_MS) return size;
      if (this.#sizes.get(environmentId) !== known) return await this.#sizeOf(environmentId, workspace);
    }
    const walk = this.#walks.run(async () => ({
      bytes: await folderBytes(workspace),
      atMs: performance.now(),
    }));
    this.#sizes.set(environmentId, walk);
    return await walk;
  }
}

async function memoryOf(processes: Process[]): Promise<number> {
  const shares = await Promise.all(
    processes.map(async ({ pid, residentBytes }) =>
      processes.length > PROPORTIONAL_LIMIT
        ? residentBytes
        : ((await proportionalBytes(pid)) ?? residentBytes),
    ),
  );
  return shares.reduce((sum, bytes) => sum + bytes, 0);
}

async function proportionalBytes(pid: number): Promise<number | undefined> {
  const text = await readFile(`/proc/${pid}/smaps_rollup`, "latin1").catch(() => "");
  const kibibytes = /^Pss:\s+(\d+) kB$/m.exec(text)?.[1];
  return kibibytes === undefined ? undefined : Number(kibibytes) * 1024;
}

/** What a folder takes on its disk; null when that takes too long. */
async function folderBytes(path: string): Promise<number | null> {
  const du = Bun.spawn(["du", "-skx", "--", path], {
    env: { PATH: SYSTEM_PATH },
    stdout: "pipe",
    stderr: "ignore",
    timeout: SIZE_LIMIT_MS,
  });
  const kibibytes = Number.parseInt(await new Response(du.stdout).text(), 10);
  return Number.isInteger(kibibytes) ? kibibytes * 1024 : null;
}
