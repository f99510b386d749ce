import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { newId } from "../../../src/lib/ids.ts";
import { createLogger } from "../../../src/lib/logger.ts";
import { createLocalRuntime } from "../../../src/runtime/local/runtime.ts";
import type {
  EnvironmentRef,
  EnvironmentSpec,
  LogLine,
  Observed,
  Runtime,
} from "../../../src/runtime/runtime.ts";
import { TestTerminal } from "../../runtime-contract.ts";
import { until } from "../../until.ts";

export const log = createLogger({ format: "text", level: "error" });

export function temporaryFolder(): { path: string; remove(): void } {
  const path = mkdtempSync(join(tmpdir(), "devpocket-local-"));
  return { path, remove: () => rmSync(path, { recursive: true, force: true }) };
}

export async function localRuntime(dataDir: string, sandbox: boolean, graceMs = 300) {
  return await createLocalRuntime({ dataDir, log, sandbox, graceMs, retryPauseSeconds: 0 });
}

export function localSpec(changes: Partial<EnvironmentSpec> = {}): EnvironmentSpec {
  return {
    environmentId: newId(),
    userId: "000000000000000000000001",
    name: "local",
    generation: 1,
    image: null,
    startupCommands: [],
    variables: {},
    resources: { cpuMillis: 500, memoryBytes: 2 ** 28, storageBytes: 2 ** 30 },
    port: 8000,
    capabilities: [],
    userQuota: null,
    ...changes,
  };
}

export async function reach(runtime: Runtime, ref: EnvironmentRef, phase: Observed["phase"]): Promise<void> {
  let last: Observed | undefined;
  await until(
    async () => {
      last = await runtime.observe(ref);
      return last.phase === phase;
    },
    { timeoutMs: 20_000, message: () => `not ${phase}, but ${JSON.stringify(last)}` },
  );
}

/** What `command` prints in a terminal of its own. */
export async function runIn(runtime: Runtime, ref: EnvironmentRef, command: string): Promise<string> {
  const terminal = await TestTerminal.open(runtime, ref, { cols: 500, rows: 50 });
  const printed = await terminal.run(command);
  terminal.pty.kill();
  await terminal.exited;
  return printed;
}

/** The whole log of an environment that has stopped. */
export async function logOf(runtime: Runtime, ref: EnvironmentRef): Promise<LogLine[]> {
  const signal = AbortSignal.timeout(10_000);
  return await Array.fromAsync(runtime.logs(ref, { after: null, signal }));
}
