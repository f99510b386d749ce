import { and, eq, isNotNull, isNull } from "drizzle-orm";
import { type Db, inTransaction } from "../db/open.ts";
import { ENVIRONMENT_STATUSES, environments } from "../db/schema.ts";
import { type Deadlines, deadlineMs } from "./lifecycle.ts";

/**
 * Gives all that passes its whole time from `at` on, when a server starts: while none ran nothing could get on,
 * and what was left is known only where a cluster could not be reached, and there the deadline stands still by
 * itself. A server that crashes again and again may so never give anything up: less harm than to end what only
 * it held up.
 */
export function renewDeadlines(db: Db, deadlines: Deadlines, at: number): void {
  inTransaction(db, (tx) => {
    for (const status of ENVIRONMENT_STATUSES) {
      const allowed = deadlineMs(status, deadlines);
      if (allowed === null) continue;
      tx.update(environments)
        .set({ deadlineAt: at + allowed })
        .where(
          and(
            eq(environments.status, status),
            isNotNull(environments.deadlineAt),
            isNull(environments.unreachableSince),
          ),
        )
        .run();
    }
  });
}
