import { eq, sql } from "drizzle-orm";
import type { Db } from "../db/open.ts";
import { environments } from "../db/schema.ts";
import { lazily } from "../lib/lazily.ts";
import type { Logger } from "../lib/logger.ts";

export interface Activity {
  /** Someone types, or the terminal prints: called for every piece, so it must cost next to nothing. */
  touch(environmentId: string): void;
  /** Writes what is not written yet. What can't be written now is kept for the next time. */
  flush(): void;
}

/** Remembers when environments were last used, until `flush`, which whoever asks for idle ones does first. */
export function createActivity(db: Db, now: () => number, log: Logger): Activity {
  const pending = new Map<string, number>();
  const write = lazily(() =>
    db
      .update(environments)
      .set({ lastActivity: sql`${sql.placeholder("at")}` })
      .where(eq(environments.id, sql.placeholder("id")))
      .prepare(),
  );

  return {
    touch(id) {
      pending.set(id, now());
    },
    flush() {
      try {
        for (const [id, at] of pending) {
          write().run({ id, at });
          pending.delete(id);
        }
      } catch (error) {
        log.error("the use of environments can't be written", { error });
      }
    },
  };
}
