import { eq } from "drizzle-orm";
import { newId } from "../lib/ids.ts";
import { type Db, inTransaction } from "./open.ts";
import { settings } from "./schema.ts";

const NAME = "installation_id";

/**
 * What tells this installation from others that share a cluster with it. It goes with the database, also
 * through backup and restore.
 */
export function installationId(db: Db): string {
  return inTransaction(db, (tx) => {
    const present = tx.select().from(settings).where(eq(settings.name, NAME)).get();
    if (present) return present.value;
    return tx.insert(settings).values({ name: NAME, value: newId() }).returning().get().value;
  });
}
