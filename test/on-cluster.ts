import { describe, test } from "bun:test";
import { existsSync } from "node:fs";
import { dirname, join } from "node:path";

/** What breaks and mends the test cluster, where it stands beside the checkout. */
const FAULT = join(import.meta.dir, "../../shared/cluster/fault");

export const canBreakCluster = existsSync(FAULT);

/** Breaks or mends the cluster; see the command's own words. */
export async function fault(what: string): Promise<void> {
  const run = Bun.spawn([FAULT, what], { cwd: dirname(FAULT), stdio: ["ignore", "ignore", "inherit"] });
  const code = await run.exited;
  if (code !== 0) throw new Error(`fault ${what} ended with ${code}`);
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
