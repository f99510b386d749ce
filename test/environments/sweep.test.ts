import { afterEach, beforeEach, expect, test } from "bun:test";
import { copyFileSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { eq } from "drizzle-orm";
import { type OpenDatabase, openDatabase } from "../../src/db/open.ts";
import { auditLog, environments, servings } from "../../src/db/schema.ts";
import { environmentRows } from "../../src/environments/rows.ts";
import { beginServing } from "../../src/environments/servings.ts";
import { createSweep } from "../../src/environments/sweep.ts";
import { leastIdAt } from "../../src/lib/ids.ts";
import { createLogger } from "../../src/lib/logger.ts";
import type { Remains } from "../../src/runtime/runtime.ts";
import { CLUSTER, environment, owner } from "./setup.ts";
import { World } from "./world.ts";

const DAY = 86_400_000;
/** When the first server of these tests starts. */
const START = 1000 * DAY;

let folder: string;
let file: string;
let world: World;
/** What of each environment is on the cluster, whatever a database says. */
let there: Map<string, Remains>;
let open: OpenDatabase | undefined;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "devpocket-test-"));
  file = join(folder, "devpocket.db");
  there = new Map();
  world = new World();
  world.list = async () => [...there.values()];
  world.remove = async ({ environmentId }) => void there.delete(environmentId);
});
afterEach(() => {
  close();
  rmSync(folder, { recursive: true });
});

function close(): void {
  open?.close();
  open = undefined;
}

function backUp(): void {
  open?.sqlite.run("VACUUM INTO ?", [join(folder, "backup.db")]);
}

function lose(): void {
  close();
  for (const suffix of ["", "-wal", "-shm"]) rmSync(file + suffix, { force: true });
}

function restore(): void {
  lose();
  copyFileSync(join(folder, "backup.db"), file);
}

/** The server that was there is gone; a new one starts at `at` on what the file holds. */
function start(at: number) {
  close();
  open = openDatabase(file);
  const { db } = open;
  beginServing(db, at);
  const logged: string[] = [];
  const sweep = createSweep({
    db,
    rows: environmentRows(db),
    runtimes: () => new Map([[CLUSTER, world]]),
    now: () => at,
    log: createLogger({ format: "text", level: "warn", write: (line) => void logged.push(line) }),
  });
  return {
    db,
    logged,
    sweep,
    audited: () =>
      db
        .select()
        .from(auditLog)
        .where(eq(auditLog.action, "environment.sweep"))
        .all()
        .map(({ targetId }) => targetId),
    /** Looks as often as it takes to remove what is to be removed, and once more. */
    async looks() {
      for (let look = 0; look < 3; look++) await sweep.run();
    },
    /** An environment that is made at that time, in the database and on the cluster. */
    creates(createdAt: number): string {
      const { id, userId } = environment(db, owner(db, { at: createdAt }), { id: idAt(createdAt) });
      leaves(id, userId);
      return id;
    },
    /** Its row goes, and nothing else. */
    forgets: (id: string) => db.delete(environments).where(eq(environments.id, id)).run(),
  };
}

function idAt(ms: number): string {
  return leastIdAt(ms).padEnd(24, "0");
}

function leaves(environmentId: string, userId: string): void {
  there.set(environmentId, { environmentId, userId, objects: [`workspaces/${environmentId}`] });
}

/** What is said of `id` that is kept. */
const kept = (id: string) =>
  expect.stringMatching(
    new RegExp(
      `WARN +kept what this .* environment_id=${id} cluster_id=${CLUSTER} objects=.*workspaces/${id}`,
    ),
  );

test("what was made after the backup that is restored is kept, and told once at each start", async () => {
  const first = start(START);
  const before = first.creates(START + 1);
  backUp();
  const second = start(START + DAY);
  const after = second.creates(START + DAY + 1);
  restore();
  for (const day of [2, 3]) {
    const restored = start(START + day * DAY);
    await restored.looks();
    expect([...there.keys()]).toEqual([before, after]);
    expect(restored.logged).toEqual([kept(after)]);
    expect(restored.audited()).toEqual([]);
  }
});

test("what was made after a backup of the very period is kept too", async () => {
  const first = start(START);
  first.creates(START + 1);
  backUp();
  const after = first.creates(START + 2);
  restore();
  const restored = start(START + DAY);
  // Made by this database, and later in its life than the one it does not know.
  const own = restored.creates(START + DAY + 1);
  await restored.looks();
  const later = start(START + 2 * DAY);
  later.forgets(own);
  await later.looks();
  expect([...there.keys()]).toEqual([idAt(START + 1), after]);
  expect(later.logged).toEqual([kept(after), expect.stringContaining(`environment_id=${own}`)]);
});

test("an environment whose time was still to come hides no gap", async () => {
  const first = start(START);
  first.creates(START + 1000 * DAY);
  backUp();
  const after = start(START + 1).creates(START + 2);
  restore();
  const restored = start(START + DAY);
  await restored.looks();
  expect(restored.logged).toEqual([kept(after)]);
});

test("when the database is lost everything is kept", async () => {
  const first = start(START);
  const ids = [first.creates(START + 1), first.creates(START + 2)];
  lose();
  const empty = start(START + DAY);
  await empty.looks();
  expect([...there.keys()]).toEqual(ids);
  expect(empty.logged).toEqual(ids.map(kept));
});

test("a database from before this was noted goes by the environments that it holds", async () => {
  const before = start(START);
  const oldest = before.creates(START + 1);
  const lost = before.creates(START + 2);
  const newest = before.creates(START + 3);
  before.db.delete(servings).run();
  const upgraded = start(START + DAY);
  leaves(idAt(START + DAY - 1), "");
  upgraded.forgets(lost);
  await upgraded.looks();
  expect([...there.keys()]).toEqual([oldest, newest, idAt(START + DAY - 1)]);
  expect(upgraded.audited()).toEqual([lost]);
});

test.each([
  ["in this period", (creates: (at: number) => string) => creates(START + 1), false],
  ["in one before", (creates: (at: number) => string) => creates(START + 1), true],
])("what was made %s and has no row any more is removed and reported", async (_, create, again) => {
  const first = start(START);
  const id = create(first.creates);
  const last = first.creates(START + 2);
  const now = again ? start(START + DAY) : first;
  now.forgets(id);
  // It must be seen twice.
  expect(await now.sweep.run()).toEqual([]);
  expect(await now.sweep.run()).toMatchObject([{ environmentId: id }]);
  expect([...there.keys()]).toEqual([last]);
  expect(now.logged).toEqual([expect.stringContaining("removing what belongs to no environment")]);
  expect(now.audited()).toEqual([id]);
});

test("what turns up of an environment that was torn down is removed, whenever that was made", async () => {
  const first = start(START);
  const id = idAt(START - DAY);
  const { userId } = environment(first.db, owner(first.db), {
    id,
    status: "terminated",
    desired: "terminated",
    tornDownAt: START,
  });
  leaves(id, userId);
  await first.looks();
  expect([...there.keys()]).toEqual([]);
  expect(first.audited()).toEqual([id]);
});

test("a namespace in which there is no environment is removed, whoever has made it", async () => {
  const first = start(START);
  leaves("none", "u");
  await first.looks();
  expect(there.size).toBe(0);
  expect(first.audited()).toEqual(["none"]);
});

test("starts in which nothing was made leave nothing behind", () => {
  start(START).creates(START + 1);
  for (const day of [1, 2, 3]) start(START + day * DAY);
  const { db } = start(START + 4 * DAY);
  expect(db.select({ at: servings.startedAt, last: servings.lastId }).from(servings).all()).toEqual([
    { at: START, last: idAt(START + 1) },
    { at: START + 4 * DAY, last: null },
  ]);
});
