import { SYSTEM_PATH } from "../startup.ts";
import { type Process, readProcess, signal } from "./processes.ts";

/** Who takes in orphans of this process, as it was found last. */
let adopter: number | undefined;

/**
 * Tells of the processes of one look which have lost their parent and their terminal, as what is left of an
 * environment has. Someone's own shell has a terminal; their tmux, which has none and no parent either, keeps
 * those of its windows.
 */
export async function orphanTest(all: readonly Process[]): Promise<(process: Process) => boolean> {
  const byPid = new Map(all.map((one) => [one.pid, one]));
  // An adopter that ends leaves its orphans, and us, to another.
  if (adopter === undefined || !ancestorsOf(process.pid, byPid).has(adopter)) adopter = await findAdopter();
  const adopterSession = adopter === undefined ? undefined : byPid.get(adopter)?.session;
  const keepers = new Set<number>();
  for (const { pid, terminal } of all) {
    if (terminal !== 0) for (const ancestor of ancestorsOf(pid, byPid)) keepers.add(ancestor);
  }
  return ({ pid, parent, session }) =>
    (parent === 1 || (parent === adopter && session !== adopterSession)) && !keepers.has(pid);
}

/** Of a process, and itself. */
function ancestorsOf(pid: number, byPid: ReadonlyMap<number, Process>): Set<number> {
  const ancestors = new Set<number>();
  for (let at = byPid.get(pid); at && !ancestors.has(at.pid); at = byPid.get(at.parent)) {
    ancestors.add(at.pid);
  }
  return ancestors;
}

/**
 * Pid 1, or an ancestor that has asked for it (prctl(2), PR_SET_CHILD_SUBREAPER), as `bun run` and a user's
 * systemd do. There is no reading who has, so an orphan is made to see where it goes. Undefined: not known.
 */
async function findAdopter(): Promise<number | undefined> {
  const parent = Bun.spawn(["sh", "-c", "sleep 10 >/dev/null & echo $!"], {
    env: { PATH: SYSTEM_PATH },
    stdin: "ignore",
    stdout: "pipe",
    stderr: "ignore",
  });
  const [said] = await Promise.all([new Response(parent.stdout).text(), parent.exited]);
  const orphan = await readProcess(Number.parseInt(said, 10));
  if (orphan) signal(orphan.pid, "SIGKILL");
  return orphan?.parent;
}
