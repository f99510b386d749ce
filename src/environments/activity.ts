import { eq, sql } from "drizzle-orm";
import type { Db } from "../db/open.ts";
import { environments } from "../db/schema.ts";
import { lazily } from "../lib/lazily.ts";

/** `last_activity` is written at most this often. */
const WRITE_MS = 30_000;

export interface Activity {
  /** Someone types, or the terminal prints: called for every piece, so it must cost next to nothing. */
  touch(environmentId: string): void;
  /** Writes what is not written yet. */
  flush(): void;
}

/** Remembers when environments were last used. */
export function createActivity(db: Db, now: () => number): Activity {
  const written = new Map<string, number>();
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
      const at = now();
      if (at - (written.get(id) ?? 0) < WRITE_MS) {
        pending.set(id, at);
        return;
      }
      written.set(id, at);
      pending.delete(id);
      write().run({ id, at });
    },
    flush() {
      for (const [id, at] of pending) write().run({ id, at });
      pending.clear();
      const old = now() - WRITE_MS;
      for (const [id, at] of written) if (at < old) written.delete(id);
    },
  };
}
