import { Database } from "bun:sqlite";
import { statSync } from "node:fs";

/**
 * A check that reads the open database, and its file as a newcomer would find it: an open connection alone
 * does not notice that its file was deleted or replaced.
 */
export function databaseCheck(sqlite: Database): () => void {
  const sql = "SELECT count(*) FROM sqlite_schema";
  const inode = statSync(sqlite.filename).ino;
  return () => {
    sqlite.query(sql).get();
    if (statSync(sqlite.filename).ino !== inode) throw new Error("the database's file was replaced");
    using fresh = new Database(sqlite.filename, { readonly: true });
    fresh.query(sql).get();
  };
}
