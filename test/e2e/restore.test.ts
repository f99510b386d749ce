import { expect, test } from "bun:test";
import { copyFileSync, existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { DEVPOCKET, TestServer, temporaryFolder } from "../harness.ts";

/** What the sweep says of `id`, once it has looked. */
async function kept(server: TestServer, id: string): Promise<void> {
  await server.output.line(new RegExp(`WARN +kept what this database does not know.*environment_id=${id}`));
}

test("an environment made after the backup that is restored keeps its files, and so when the database is lost", async () => {
  const dataDir = temporaryFolder();
  const backup = join(dataDir, "backup.db");
  const database = join(dataDir, "devpocket.db");
  const takeAway = () => {
    for (const suffix of ["", "-wal", "-shm"]) rmSync(database + suffix, { force: true });
  };
  try {
    const first = await TestServer.start({ dataDir });
    const client = await first.signedIn();
    const before = await client.environment({ name: "before", template: "shell" });
    const copied = Bun.spawnSync([...DEVPOCKET, "backup", backup], {
      env: { PATH: Bun.env.PATH ?? "", DATA_DIR: dataDir },
    });
    expect(copied.exitCode).toBe(0);
    const after = await client.environment({ name: "after", template: "shell" });
    const files = [before, after].map(({ id }) => join(dataDir, "workspaces", String(id), "work.txt"));
    for (const file of files) writeFileSync(file, "a day's work");
    const work = () => files.map((file) => existsSync(file) && readFileSync(file, "utf8"));
    await first.kill();

    takeAway();
    copyFileSync(backup, database);
    const restored = await TestServer.start({ dataDir });
    await kept(restored, String(after.id));
    const environments = await (await restored.signedIn()).list("/api/v1/environments");
    expect(environments.map(({ name }) => name)).toEqual(["before"]);
    expect(restored.output.text).not.toContain(`environment_id=${before.id} cluster_id`);
    expect(work()).toEqual(["a day's work", "a day's work"]);
    await restored.kill();

    takeAway();
    const empty = await TestServer.start({ dataDir });
    await Promise.all([before, after].map(({ id }) => kept(empty, String(id))));
    expect(work()).toEqual(["a day's work", "a day's work"]);
    await empty.stop();
  } finally {
    rmSync(dataDir, { recursive: true, force: true });
  }
}, 60_000);
