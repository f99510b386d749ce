import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createLogger } from "../../../src/lib/logger.ts";
import { createLocalRuntime } from "../../../src/runtime/local/runtime.ts";
import { runtimeContract } from "../../runtime-contract.ts";

const log = createLogger({ format: "text", level: "warn" });

for (const sandbox of [true, false]) {
  if (sandbox && !Bun.which("bwrap")) continue;
  runtimeContract(
    sandbox ? "the local runtime in sandboxes" : "the local runtime without sandboxes",
    async () => {
      const dataDir = mkdtempSync(join(tmpdir(), "devpocket-local-"));
      return {
        open: () => createLocalRuntime({ dataDir, log, sandbox, retryPauseSeconds: 0 }),
        dispose: async () => rmSync(dataDir, { recursive: true, force: true }),
      };
    },
    { image: null, timeoutMs: 10_000 },
  );
}
