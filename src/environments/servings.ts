import { and, gt, gte, isNull, lt, lte, max, min, or } from "drizzle-orm";
import { type Db, inTransaction } from "../db/open.ts";
import { environments, servings } from "../db/schema.ts";
import { leastIdAt, timeOf } from "../lib/ids.ts";

/**
 * Notes that from `now` on this database is the one served, until the next time; once for each start of a
 * server. The period before ended with the last environment that the database holds of it: what was made
 * after that is no part of this database, should it be an older one that was put back.
 */
export function beginServing(db: Db, now: number): void {
  inTransaction(db, (tx) => {
    const { oldest, newest } = tx
      .select({ oldest: min(environments.id), newest: max(environments.id) })
      .from(environments)
      // A clock that was ahead has made ids of a time to come, which would cover every gap until then.
      .where(lt(environments.id, leastIdAt(now)))
      .get() ?? { oldest: null, newest: null };
    const isNoted = tx.select().from(servings).limit(1).get() !== undefined;
    if (!isNoted && oldest !== null) {
      // A database of a version that noted nothing: it goes by what it holds.
      tx.insert(servings)
        .values({ startedAt: timeOf(oldest), lastId: newest })
        .run();
    }
    tx.delete(servings)
      .where(
        and(isNull(servings.lastId), newest === null ? undefined : gt(servings.startedAt, timeOf(newest))),
      )
      .run();
    tx.update(servings).set({ lastId: newest }).where(isNull(servings.lastId)).run();
    tx.insert(servings).values({ startedAt: now }).run();
  });
}

/** Whether the environment `id` was made while this database was served, whatever has become of its row. */
export function wasMadeHere(db: Db, id: string): boolean {
  const period = db
    .select()
    .from(servings)
    .where(and(lte(servings.startedAt, timeOf(id)), or(isNull(servings.lastId), gte(servings.lastId, id))))
    .limit(1)
    .get();
  return period !== undefined;
}
