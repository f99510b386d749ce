/*
 * A server made of nothing but the runtime, to be killed: it starts the environments of which it is told on
 * its command line as JSON, opens a terminal in each, and says "ready".
 */
import { createLogger } from "../../../src/lib/logger.ts";
import { createLocalRuntime } from "../../../src/runtime/local/runtime.ts";
import type { EnvironmentSpec } from "../../../src/runtime/runtime.ts";
import { until } from "../../until.ts";

interface Task {
  dataDir: string;
  sandbox: boolean;
  specs: EnvironmentSpec[];
  /** Begin of the seconds that its sleeps take. */
  sleep: string;
}

const { dataDir, sandbox, specs, sleep }: Task = JSON.parse(process.argv[2] ?? "");
const log = createLogger({ format: "text", level: "error" });
const runtime = await createLocalRuntime({ dataDir, log, sandbox });
for (const spec of specs) await runtime.ensure(spec);
for (const spec of specs) {
  await until(async () => (await runtime.observe(spec)).phase === "running");
  const shell = await runtime.openTerminal(spec, {
    size: { cols: 80, rows: 24 },
    onData: () => {},
    onExit: () => {},
    onDrain: () => {},
  });
  shell.write(Buffer.from(`sleep ${sleep}4 & (trap '' TERM HUP; setsid sleep ${sleep}5 &) ; touch typed\n`));
}
process.stdout.write("ready\n");
