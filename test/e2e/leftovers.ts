import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

/** Every folder and file below the data folder, by path. */
export function filesIn(dataDir: string): string[] {
  return existsSync(dataDir) ? readdirSync(dataDir, { recursive: true }).map(String) : [];
}

/**
 * Processes of this host that have `text` on their command line or in their environment variables. The
 * sandbox names its environment's id on its command line, processes without one have it around them.
 */
export function processesWith(text: string): number[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => {
      try {
        return ["cmdline", "environ"].some((file) =>
          readFileSync(join("/proc", pid, file), "latin1").includes(text),
        );
      } catch {
        return false;
      }
    })
    .map(Number);
}
