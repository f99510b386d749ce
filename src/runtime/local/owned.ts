import { readFile, readlink } from "node:fs/promises";
import { orphanTest } from "./orphans.ts";
import { familyOf, type Process, scanProcesses } from "./processes.ts";

/*
 * Which processes of this host belong to which environment: those that were started with our mark in their
 * environment variables, orphans that work in a workspace, and the families and sessions of both.
 */

export const MARK = "DEVPOCKET_LOCAL";
const BATCH = 64;
const RECENT_MS = 1000;

interface Scan {
  atMs: number;
  processes: Process[];
  /** Environment ids by pid. */
  marked: Map<number, string>;
}

/** Processes of the environments of one installation, of a server that died among them. */
export class Owned {
  /** Whose processes these are: in their mark, and kept with what is known of a run. */
  readonly installation: string;
  readonly #workspaces: string;
  #current: Promise<Scan> | undefined;
  #next: Promise<Scan> | undefined;
  #last: Scan | undefined;

  /** @param workspaces the folder of all workspaces */
  constructor(installation: string, workspaces: string) {
    this.installation = installation;
    this.#workspaces = workspaces;
  }

  /** The variable that environments' first processes are started with. */
  markOf(environmentId: string): Record<string, string> {
    return { [MARK]: `${this.installation}/${environmentId}` };
  }

  async processesOf(environmentId: string, roots: Iterable<number>): Promise<Process[]> {
    return family(await this.#scan(), environmentId, roots);
  }

  /** The same from a look not older than a second, for figures; one from before `root` began is of no use. */
  async recentProcessesOf(environmentId: string, root: number): Promise<Process[]> {
    const last = this.#last;
    const isRecent = last && performance.now() - last.atMs < RECENT_MS;
    const fresh = isRecent && last.processes.some(({ pid }) => pid === root) ? last : await this.#scan();
    return family(fresh, environmentId, [root]);
  }

  /** Ids of environments of which processes are there. */
  async environments(): Promise<Set<string>> {
    return new Set((await this.#scan()).marked.values());
  }

  /** One scan at a time; those who ask while one is on its way share the next. */
  #scan(): Promise<Scan> {
    this.#next ??= (this.#current ?? Promise.resolve()).then(() => {
      this.#next = undefined;
      this.#current = this.#look().finally(() => {
        this.#current = undefined;
      });
      return this.#current;
    });
    return this.#next;
  }

  async #look(): Promise<Scan> {
    const processes = await scanProcesses();
    this.#last = { atMs: performance.now(), processes, marked: await this.#marks(processes) };
    return this.#last;
  }

  async #marks(processes: Process[]): Promise<Map<number, string>> {
    const marked = new Map<number, string>();
    const others = processes.filter(({ pid, exiting }) => !exiting && pid !== process.pid);
    const isOrphan = await orphanTest(processes);
    for (let at = 0; at < others.length; at += BATCH) {
      await Promise.all(
        others.slice(at, at + BATCH).map(async (other) => {
          const { pid } = other;
          const id =
            (await this.#markIn(pid)) ?? (isOrphan(other) ? await this.#workspaceOf(pid) : undefined);
          if (id !== undefined) marked.set(pid, id);
        }),
      );
    }
    return marked;
  }

  async #markIn(pid: number): Promise<string | undefined> {
    const prefix = `${MARK}=${this.installation}/`;
    const variables = await readFile(`/proc/${pid}/environ`, "latin1").catch(() => "");
    const at = variables.startsWith(prefix) ? 0 : variables.indexOf(`\0${prefix}`) + 1;
    if (at === 0 && !variables.startsWith(prefix)) return undefined;
    return variables.slice(at + prefix.length).split("\0", 1)[0];
  }

  async #workspaceOf(pid: number): Promise<string | undefined> {
    const folder = await readlink(`/proc/${pid}/cwd`).catch(() => "");
    return folder.startsWith(`${this.#workspaces}/`)
      ? folder.slice(this.#workspaces.length + 1).split("/", 1)[0]
      : undefined;
  }
}

function family({ processes, marked }: Scan, environmentId: string, roots: Iterable<number>): Process[] {
  const members = new Set(roots);
  for (const [pid, id] of marked) if (id === environmentId) members.add(pid);
  return members.size === 0 ? [] : familyOf(processes, members);
}

/** Changes with each start of the host: pids of an earlier one mean nothing. */
export async function hostBoot(): Promise<string> {
  return (await readFile("/proc/sys/kernel/random/boot_id", "utf8")).trim();
}
