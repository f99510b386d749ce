import { chmod, mkdir, readdir, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import * as v from "valibot";
import { isId } from "../../lib/ids.ts";
import { SYSTEM_PATH } from "../startup.ts";

/*
 * What the local runtime keeps on disk. Per environment a workspace, and a private folder with its state,
 * its log and what its processes may read. A private folder without a state file is what is left of one that
 * was being removed.
 */

export interface Folders {
  workspace: string;
  private: string;
  log: string;
  runDir: string;
}

const Limits = v.object({ cpuMillis: v.number(), memoryBytes: v.number(), storageBytes: v.number() });

const State = v.object({
  userId: v.string(),
  name: v.string(),
  /** What it asked for; requests, since nothing enforces them here. */
  resources: Limits,
  /** The first process of the run that was begun last; null when it was ended on purpose. */
  run: v.nullable(
    v.object({
      pid: v.number(),
      startTicks: v.number(),
      hostBoot: v.string(),
      /** Of the server that began it: in a copy of the data folder it is another's. Older ones did not say. */
      installation: v.optional(v.string()),
    }),
  ),
});
export type State = v.InferOutput<typeof State>;

export function foldersOf(dataDir: string, environmentId: string): Folders {
  const own = join(dataDir, "local", environmentId);
  return {
    workspace: join(dataDir, "workspaces", environmentId),
    private: own,
    log: join(own, "log"),
    runDir: join(own, "run"),
  };
}

/** Ids of all environments of which anything is on disk. */
export async function environmentsOnDisk(dataDir: string): Promise<string[]> {
  const names = await Promise.all(
    ["workspaces", "local"].map(async (folder) => {
      await mkdir(join(dataDir, folder), { recursive: true, mode: 0o700 });
      return await readdir(join(dataDir, folder));
    }),
  );
  return [...new Set(names.flat())].filter((name) => isId(name));
}

/** Also lets the owner into a workspace that is there, whatever they have done to its mode. */
export async function makeFolders(folders: Folders): Promise<void> {
  for (const folder of [folders.private, folders.log, folders.workspace]) {
    await mkdir(folder, { recursive: true, mode: 0o700 });
  }
  const mode = (await stat(folders.workspace)).mode & 0o7777;
  if ((mode & 0o700) !== 0o700) await chmod(folders.workspace, mode | 0o700);
}

/** Undefined when there is none that can be read. */
export async function readState(folders: Folders): Promise<State | undefined> {
  try {
    const json: unknown = JSON.parse(await readFile(join(folders.private, "state.json"), "utf8"));
    const parsed = v.safeParse(State, json);
    return parsed.success ? parsed.output : undefined;
  } catch {
    return undefined;
  }
}

/** Whole or not at all, also when the server is killed meanwhile. */
export async function writeState(folders: Folders, state: State): Promise<void> {
  const path = join(folders.private, "state.json");
  await writeFile(`${path}.new`, JSON.stringify(state), { mode: 0o600 });
  await rename(`${path}.new`, path);
}

/**
 * Removes everything of an environment whose processes have ended; the state last, so that what is left of a
 * removal that was cut short is still known.
 */
export async function removeFolders(folders: Folders): Promise<void> {
  await removeTree(folders.workspace);
  const inside = await readdir(folders.private).catch(() => []);
  for (const name of inside.filter((entry) => entry !== "state.json")) {
    await rm(join(folders.private, name), { recursive: true, force: true });
  }
  await rm(folders.private, { recursive: true, force: true });
}

/**
 * By the system's own `rm`, which walks with file descriptors: a user may have made a tree deeper than any
 * path can be long, over which the platform's removal never ends. Also one that its owner may not write to.
 */
async function removeTree(path: string): Promise<void> {
  if ((await run("rm", "-rf", "--", path)) === null) return;
  await run("chmod", "-R", "u+rwX", "--", path);
  const fault = await run("rm", "-rf", "--", path);
  if (fault !== null) throw new Error(`${path} could not be removed: ${fault}`);
}

/** Null, or what it complained of first. */
async function run(...command: string[]): Promise<string | null> {
  const child = Bun.spawn(command, {
    env: { PATH: SYSTEM_PATH, LC_ALL: "C" },
    stdin: "ignore",
    stdout: "ignore",
    stderr: "pipe",
  });
  const [said, code] = await Promise.all([new Response(child.stderr).text(), child.exited]);
  return code === 0 ? null : (said.split("\n")[0] ?? "");
}
