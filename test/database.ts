import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type OpenDatabase, openDatabase } from "../src/db/open.ts";

/** A new, migrated database in a folder of its own; `remove` closes it and takes the folder away. */
export function temporaryDatabase(): OpenDatabase & { remove(): void } {
  const folder = mkdtempSync(join(tmpdir(), "devpocket-test-"));
  const database = openDatabase(join(folder, "devpocket.db"));
  return {
    ...database,
    remove() {
      database.close();
      rmSync(folder, { recursive: true });
    },
  };
}
