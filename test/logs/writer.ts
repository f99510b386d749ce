/* Collects an endless, counted log into a database until it is killed: bun writer.ts FILE ENVIRONMENT */
import { openDatabase } from "../../src/db/open.ts";
import { createLogger } from "../../src/lib/logger.ts";
import { createLogCollector } from "../../src/logs/collect.ts";
import { createLogStore } from "../../src/logs/store.ts";
import { line } from "./environment.ts";

const [file = "", environmentId = ""] = process.argv.slice(2);
const { db } = openDatabase(file);
const collector = createLogCollector({
  store: createLogStore(db),
  runtimeOf: () => ({
    async *logs(_, { after }) {
      for (let n = Number(after ?? 0) + 1; ; n++) {
        yield line(n);
        if (n % 37 === 0) await Bun.sleep(1);
      }
    },
  }),
  log: createLogger({ format: "text", level: "info" }),
});
collector.start({ environmentId, userId: "ada" });
