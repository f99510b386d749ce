import { Database, SQLiteError } from "bun:sqlite";
import { join } from "node:path";
import { type BunSQLiteDatabase, drizzle } from "drizzle-orm/bun-sqlite";
import { type MigrationMeta, readMigrationFiles } from "drizzle-orm/migrator";
import { ConfigError } from "../config/config.ts";
import * as schema from "./schema.ts";

export type Db = BunSQLiteDatabase<typeof schema>;

/** The database or a transaction on it: what a function takes that must be able to run inside one. */
export type Tx = Parameters<Parameters<Db["transaction"]>[0]>[0];
export type DbOrTx = Db | Tx;

/** In the source tree and, by `--asset`, at the same place of the compiled binary. */
const MIGRATIONS = join(
  import.meta.dir,
  import.meta.dir.startsWith("/$bunfs") ? "migrations" : "../../migrations",
);

export interface OpenDatabase {
  db: Db;
  sqlite: Database;
  /** Creation times (ms) of the migrations that this start has applied. */
  applied: number[];
  close(): void;
}

/**
 * Opens the database file, made when absent or empty, and brings its schema up to date.
 *
 * @param beforeMigrating called when there is something to migrate; nothing is when it throws
 * @throws ConfigError for the database of a newer version, one that is damaged and one that is not ours
 * @throws Error when a migration fails or one that was applied has changed since; the file is as before
 */
export function openDatabase(file: string, beforeMigrating = () => {}): OpenDatabase {
  const sqlite = new Database(file, { create: true, strict: true });
  let applied: number[];
  try {
    // First of all: migrating and switching to WAL take locks, and simultaneous starts would fail on them.
    sqlite.run("PRAGMA busy_timeout = 5000");
    refuseForeign(sqlite);
    applied = migrate(sqlite, beforeMigrating);
    // WAL makes an empty file one with a header. After migrating, a start that is cut short leaves it empty.
    for (const pragma of ["journal_mode = WAL", "synchronous = NORMAL", "foreign_keys = ON"]) {
      sqlite.run(`PRAGMA ${pragma}`);
    }
  } catch (error) {
    sqlite.close();
    throw damage(file, error) ?? error;
  }
  return {
    db: drizzle(sqlite, { schema, casing: "snake_case" }),
    sqlite,
    applied,
    close() {
      sqlite.run("PRAGMA optimize");
      sqlite.close();
    },
  };
}

/** What to say of a database file of which SQLite says that it is damaged; undefined for other errors. */
export function damage(file: string, error: unknown): ConfigError | undefined {
  if (!(error instanceof SQLiteError) || !/^SQLITE_(?:CORRUPT|NOTADB)/.test(error.code ?? ""))
    return undefined;
  return new ConfigError(`${file} is damaged (${error.message}): restore it from a backup`);
}

/**
 * Only an empty file is to become a new installation: one that holds anything but our tables is another
 * program's, or a copy that is not whole, and a server on it would look as if all accounts were lost.
 */
function refuseForeign(sqlite: Database): void {
  const pages = sqlite.query<{ page_count: number }, []>("PRAGMA page_count").get();
  const ours = "SELECT 1 FROM sqlite_schema WHERE name = '__drizzle_migrations'";
  if (pages?.page_count === 0 || sqlite.query(ours).get()) return;
  throw new ConfigError(
    `${sqlite.filename} has no tables of DevPocket: restore it from a backup, or remove it for a new installation`,
  );
}

/**
 * Drizzle's own `migrate` switches foreign keys off inside its transaction, where that does nothing: a
 * table rebuild would cascade-delete rows. Here they are off before it begins and checked before it ends.
 */
function migrate(sqlite: Database, beforeMigrating: () => void): number[] {
  sqlite.run("PRAGMA foreign_keys = OFF");
  sqlite.run("BEGIN IMMEDIATE");
  try {
    sqlite.run(
      "CREATE TABLE IF NOT EXISTS __drizzle_migrations (id INTEGER PRIMARY KEY AUTOINCREMENT, hash TEXT NOT NULL, created_at NUMERIC)",
    );
    const pending = pendingMigrations(sqlite);
    if (pending.length > 0) beforeMigrating();
    for (const migration of pending) {
      for (const statement of migration.sql) if (statement.trim()) sqlite.run(statement);
      sqlite
        .query("INSERT INTO __drizzle_migrations (hash, created_at) VALUES (?, ?)")
        .run(migration.hash, migration.folderMillis);
    }
    const violations = sqlite.query("PRAGMA foreign_key_check").all();
    if (violations.length > 0) throw new Error(`a migration broke ${violations.length} foreign keys`);
    sqlite.run("COMMIT");
    return pending.map(({ folderMillis }) => folderMillis);
  } catch (error) {
    sqlite.run("ROLLBACK");
    throw error;
  }
}

function pendingMigrations(sqlite: Database): MigrationMeta[] {
  const known = readMigrationFiles({ migrationsFolder: MIGRATIONS });
  const applied = sqlite
    .query<{ created_at: number; hash: string }, []>("SELECT created_at, hash FROM __drizzle_migrations")
    .all()
    .map((row) => ({ at: Number(row.created_at), hash: row.hash }));
  for (const { at, hash } of applied) {
    const file = known.find(({ folderMillis }) => folderMillis === at);
    if (!file) {
      throw new ConfigError(
        `${sqlite.filename} was brought up to date by a newer DevPocket. Use that one, or a backup from before`,
      );
    }
    if (file.hash !== hash) throw new Error(`migration ${at} has changed since it was applied`);
  }
  return known.filter(({ folderMillis }) => !applied.some(({ at }) => at === folderMillis));
}

/**
 * Runs `work` in an immediate transaction. It must be synchronous: of an async callback everything before
 * its first await would be committed even when it throws, so the types refuse one.
 */
export function inTransaction<T>(db: Db, work: (tx: Tx) => T extends Promise<unknown> ? never : T): T {
  return db.transaction((tx) => work(tx) as T, { behavior: "immediate" });
}
