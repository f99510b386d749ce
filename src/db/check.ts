import { Database, SQLiteError } from "bun:sqlite";
import { statSync } from "node:fs";

/** Whoever asks may ask often: what was written a moment ago is not written again. */
const WRITE_EVERY_MS = 5000;

/**
 * A check that reads the open database, and its file as a newcomer would find it: an open connection alone
 * does not notice that its file was deleted or replaced. It writes, too: on a full disk all can be read.
 */
export function databaseCheck(sqlite: Database): () => void {
  const sql = "SELECT count(*) FROM sqlite_schema";
  const inode = statSync(sqlite.filename).ino;
  let writtenAt = Number.NEGATIVE_INFINITY;
  return () => {
    sqlite.query(sql).get();
    if (statSync(sqlite.filename).ino !== inode) throw new Error("the database's file was replaced");
    using fresh = new Database(sqlite.filename, { readwrite: true, create: false });
    fresh.query(sql).get();
    if (performance.now() - writtenAt < WRITE_EVERY_MS) return;
    write(fresh);
    writtenAt = performance.now();
  };
}

/** One page, with what it holds already: nothing reads this number. */
function write(sqlite: Database): void {
  try {
    sqlite.run("PRAGMA user_version = 0");
  } catch (error) {
    // Somebody else writes at this moment, so it can be done.
    if (!(error instanceof SQLiteError) || error.code !== "SQLITE_BUSY") throw error;
  }
}
