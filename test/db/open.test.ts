import { Database } from "bun:sqlite";
import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ConfigError } from "../../src/config/config.ts";
import { openDatabase } from "../../src/db/open.ts";

let folder: string;
let file: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "devpocket-test-"));
  file = join(folder, "devpocket.db");
});
afterEach(() => rmSync(folder, { recursive: true }));

test("a start that is killed while it makes the database leaves a file of which the next makes one", async () => {
  const source = join(import.meta.dir, "../../src/db/open.ts");
  const script = `import { openDatabase } from ${JSON.stringify(source)};
    openDatabase(${JSON.stringify(file)}, () => process.kill(process.pid, "SIGKILL"));`;
  const cut = Bun.spawn([process.execPath, "-e", script]);
  await cut.exited;
  expect(cut.signalCode).toBe("SIGKILL");
  const made = openDatabase(file);
  expect(made.applied.length).toBeGreaterThan(0);
  made.close();
});

test("a database without our tables is refused, and left as it is", () => {
  using database = new Database(file);
  database.run("create table other (id)");
  expect(() => openDatabase(file)).toThrow(ConfigError);
  expect(() => openDatabase(file)).toThrow(file);
  expect(database.query("select name from sqlite_schema").values()).toEqual([["other"]]);
  expect(database.query("pragma journal_mode").values()).toEqual([["delete"]]);
});

test("a database is in WAL mode, also one that is opened again", () => {
  for (const _ of ["made", "opened"]) {
    const { sqlite, close } = openDatabase(file);
    expect(sqlite.query("pragma journal_mode").get()).toEqual({ journal_mode: "wal" });
    expect(sqlite.query("pragma synchronous").get()).toEqual({ synchronous: 1 });
    expect(sqlite.query("pragma foreign_keys").get()).toEqual({ foreign_keys: 1 });
    close();
  }
});
