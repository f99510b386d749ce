import { describe, test } from "bun:test";
import { existsSync } from "node:fs";
import { dirname, join } from "node:path";

/** What breaks and mends the test cluster, where it stands beside the checkout. */
const FAULT = join(import.meta.dir, "../../shared/cluster/fault");

export const canBreakCluster = existsSync(FAULT);

/** Breaks or mends the cluster; see the command's own words. */
export async function fault(what: string): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    const run = Bun.spawn([FAULT, what], { cwd: dirname(FAULT), stdio: ["ignore", "ignore", "pipe"] });
    const [code, errors] = await Promise.all([run.exited, run.stderr.text()]);
    if (code === 0) return;
    // A connection may end by itself between being found and being cut.
    if (attempt === 5 || what !== "connections-cut") throw new Error(`fault ${what}: ${errors}`);
  }
}

/** The process of the cluster's API server, where it runs on this machine: with it one can be in its network. */
export function apiServerPid(): number | null {
  const found = Bun.spawnSync(["pgrep", "--exact", "kube-apiserver"]).stdout.toString().trim();
  return found === "" ? null : Number(found.split("\n")[0]);
}

/**
 * A suite that needs a real cluster, the one that KUBECONFIG names. Without it the suite's body is not run
 * at all (`describe.if` would), and one skipped test stands for it.
 *
 * @param needs what else must be there
 */
export function onCluster(name: string, body: () => void, needs: unknown = true): void {
  if (process.env.KUBECONFIG && needs) describe(name, body);
  else test.skip(`${name} (needs a cluster)`, () => {});
}
