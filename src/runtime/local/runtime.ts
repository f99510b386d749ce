import { randomBytes } from "node:crypto";
import { mkdir, readFile, realpath, rename, stat, statfs, writeFile } from "node:fs/promises";
import { availableParallelism, totalmem } from "node:os";
import { join } from "node:path";
import type { Logger } from "../../lib/logger.ts";
import { Semaphore } from "../../lib/semaphore.ts";
import { createHints } from "../hints.ts";
import { type Capacity, type EnvironmentRef, type Runtime, RuntimeRejected } from "../runtime.ts";
import { endLeftovers, type Host, LocalEnvironment } from "./environment.ts";
import { environmentsOnDisk, foldersOf, readState } from "./folders.ts";
import { hostBoot, Owned } from "./owned.ts";
import { trySandbox } from "./sandbox.ts";
import { Meter } from "./usage.ts";

const STARTS_AT_ONCE = 4;

export interface LocalRuntimeOptions {
  dataDir: string;
  log: Logger;
  now?: () => number;
  /** False: plain processes even where a sandbox would work. */
  sandbox?: boolean;
  /** Between two attempts of a startup command. */
  retryPauseSeconds?: number;
  /** How long processes without a sandbox, and what an earlier server has left, may take to end by themselves. */
  graceMs?: number;
}

export interface LocalRuntime extends Runtime {
  /** Whether environments are sandboxed, and why not. For the first lines of the log and `/api/v1/info`. */
  readonly isolation: { sandboxed: true } | { sandboxed: false; reason: string };
}

/**
 * Environments as processes of this host, their files under `dataDir`. Before it resolves, everything that
 * an earlier server has left running is ended; its workspaces are then observed as stopped. The caller sees to
 * it that no other server uses `dataDir`: two would end each other's environments.
 */
export async function createLocalRuntime(options: LocalRuntimeOptions): Promise<LocalRuntime> {
  const { log, now = Date.now, retryPauseSeconds = 2, graceMs = 2000 } = options;
  const dataDir = await realFolder(options.dataDir);
  const own = await realFolder(join(dataDir, "local"));
  const owned = new Owned(await installationId(own), await realFolder(join(dataDir, "workspaces")));
  const trial =
    options.sandbox === false
      ? { sandbox: null, reason: "switched off" }
      : await trySandbox(join(own, "sandbox"), dataDir);
  const changes = createHints();
  const meter = new Meter(owned);
  const environments = new Map<string, LocalEnvironment>();
  const host: Host = {
    dataDir,
    hostBoot: await hostBoot(),
    sandbox: trial.sandbox,
    noSandboxReason: trial.reason,
    owned,
    log,
    now,
    retryPauseSeconds,
    graceMs,
    starts: new Semaphore(STARTS_AT_ONCE),
    onChange: (ref) => changes.tell(ref),
    onGone: ({ environmentId }) => {
      environments.delete(environmentId);
      meter.forget(environmentId);
    },
  };
  await takeOver(host, environments);

  /** The one environment of that id, made if need be. */
  const environmentOf = (ref: EnvironmentRef): LocalEnvironment => {
    const { environmentId, userId } = ref;
    const known = environments.get(environmentId);
    if (known) return known;
    const made = new LocalEnvironment(host, { environmentId, userId }, undefined);
    environments.set(environmentId, made);
    return made;
  };

  return {
    isolation: trial.sandbox === null ? { sandboxed: false, reason: trial.reason } : { sandboxed: true },
    async observe({ environmentId }) {
      return environments.get(environmentId)?.observe() ?? { phase: "absent" };
    },
    async ensure(spec) {
      environmentOf(spec).ensure(spec);
    },
    async stop({ environmentId }) {
      environments.get(environmentId)?.stop();
    },
    async remove({ environmentId }) {
      environments.get(environmentId)?.remove();
    },
    changes: (signal) => changes.listen(signal),
    async openTerminal({ environmentId }, terminal) {
      const environment = environments.get(environmentId);
      if (!environment) throw new RuntimeRejected("rejected", "The environment is not running");
      return await environment.openTerminal(terminal);
    },
    async *logs({ environmentId }, { after, signal }) {
      const environment = environments.get(environmentId);
      if (environment) yield* environment.logs(after, signal);
    },
    async usage({ environmentId }) {
      const environment = environments.get(environmentId);
      const run = environment?.running;
      if (!environment || !run) return null;
      const { pid, startedAtMs } = run;
      return await meter.measure({ environmentId, workspace: environment.workspace, pid, startedAtMs });
    },
    capacity: () => capacityOf(host, [...environments.values()]),
    async list() {
      return [...environments.values()].map(({ ref, workspace }) => ({ ...ref, objects: [workspace] }));
    },
    async close() {
      await Promise.all(Array.from(environments.values(), (environment) => environment.shutDown()));
    },
  };
}

/** Made if need be; as the kernel names it, without symbolic links. */
async function realFolder(path: string): Promise<string> {
  await mkdir(path, { recursive: true, mode: 0o700 });
  return await realpath(path);
}

/** Ends what an earlier server has left and finds its workspaces again. */
async function takeOver(host: Host, environments: Map<string, LocalEnvironment>): Promise<void> {
  const onDisk = new Set(await environmentsOnDisk(host.dataDir));
  const atOnce = new Semaphore(8);
  const states = await Promise.all(
    Array.from(onDisk, async (environmentId) => ({
      environmentId,
      state: await readState(foldersOf(host.dataDir, environmentId)),
    })),
  );
  const alive = await host.owned.environments();
  const left = states.filter(({ environmentId, state }) => alive.has(environmentId) || state?.run != null);
  const strays = [...alive]
    .filter((id) => !onDisk.has(id))
    .map((id) => ({ environmentId: id, state: undefined }));
  await Promise.all(
    [...left, ...strays].map(({ environmentId, state }) =>
      atOnce.run(() => endLeftovers(host, environmentId, state)),
    ),
  );
  if (alive.size > 0)
    host.log.info("ended what an earlier server left running", { environments: alive.size });
  for (const { environmentId, state } of states) {
    const ref = { environmentId, userId: state?.userId ?? "" };
    environments.set(environmentId, new LocalEnvironment(host, ref, state));
  }
}

/**
 * Marks the processes of this data folder's environments. It is kept with the device and inode of `folder`,
 * which a copy does not share: the copy gets a mark of its own, and leaves the processes of the original alone.
 * A folder that was moved within its file system is the same one: what a killed server has left is ended from
 * there. One that was restored, or moved to another file system, no longer knows what a server that was killed
 * before has left running: those orphans go on until somebody ends them, or the host.
 */
async function installationId(folder: string): Promise<string> {
  const path = join(folder, "installation");
  const { dev, ino } = await stat(folder, { bigint: true });
  const here = `${dev}:${ino}`;
  const text = await readFile(path, "utf8").catch(() => "");
  const [, known, place] = /^([0-9a-f]{32})(?: (\d+:\d+))?$/.exec(text) ?? [];
  if (known !== undefined && place === here) return known;
  // A file of an older version names no place.
  const id = known !== undefined && place === undefined ? known : randomBytes(16).toString("hex");
  // A new file in its place: a copy may be made of links to the original's.
  await writeFile(`${path}.new`, `${id} ${here}`, { mode: 0o600 });
  await rename(`${path}.new`, path);
  return id;
}

/** The host's figures. `used*` are what running environments have asked for; nothing here enforces it. */
async function capacityOf(host: Host, environments: LocalEnvironment[]): Promise<Capacity> {
  const requests = environments.flatMap((environment) => environment.requests ?? []);
  const sum = (figure: (request: (typeof requests)[number]) => number) =>
    requests.reduce((total, request) => total + figure(request), 0);
  const disk = await statfs(host.dataDir).catch(() => undefined);
  const sandboxed = host.sandbox !== null;
  return {
    nodes: 1,
    readyNodes: 1,
    totalCpuMillis: availableParallelism() * 1000,
    usedCpuMillis: sum(({ cpuMillis }) => cpuMillis),
    totalMemoryBytes: totalmem(),
    usedMemoryBytes: sum(({ memoryBytes }) => memoryBytes),
    totalStorageBytes: disk ? disk.blocks * disk.bsize : null,
    usedStorageBytes: sum(({ storageBytes }) => storageBytes),
    components: [
      {
        name: "sandbox",
        status: sandboxed ? "healthy" : "degraded",
        message: sandboxed
          ? "Environments run in bubblewrap sandboxes"
          : `Environments run without a sandbox: ${host.noSandboxReason}`,
      },
      {
        name: "storage",
        status: disk ? "healthy" : "unhealthy",
        message: disk ? "The data folder can be read" : "The data folder can't be read",
      },
    ],
  };
}
