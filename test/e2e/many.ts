import { readdirSync } from "node:fs";
import { join } from "node:path";
import type { TestClient, TestServer } from "../harness.ts";
import { until } from "../until.ts";

/** Creates `count` environments of the template `shell`, all requests at once; gives their ids. */
export async function createMany(client: TestClient, count: number): Promise<string[]> {
  const names = Array.from({ length: count }, (_, i) => `env-${i}`);
  const created = await Promise.all(
    names.map((name) => client.post("/api/v1/environments", { name, template: "shell" }, 201)),
  );
  return created.map(({ id }) => String(id));
}

/** Waits until all of the client's environments, `count` of them, have `status`. */
export async function allBecome(client: TestClient, status: string, count: number): Promise<void> {
  let counts: Record<string, number> = {};
  const arrived = async () => {
    counts = {};
    for (const environment of await client.list("/api/v1/environments?limit=200")) {
      const found = String(environment.status);
      counts[found] = (counts[found] ?? 0) + 1;
    }
    return counts[status] === count;
  };
  await until(arrived, { timeoutMs: 120_000, intervalMs: 100, message: () => JSON.stringify(counts) });
}

/** Deletes them, all requests at once, and waits until no folder of theirs is left. */
export async function deleteMany(client: TestClient, server: TestServer, ids: string[]): Promise<void> {
  await Promise.all(ids.map((id) => client.delete(`/api/v1/environments/${id}`)));
  const left = () => ["local", "workspaces"].flatMap((folder) => readdirSync(join(server.dataDir, folder)));
  const gone = () => !left().some((name) => ids.includes(name));
  await until(gone, { timeoutMs: 120_000, intervalMs: 100, message: () => `${left().length} folders left` });
}
