import { Database } from "bun:sqlite";
import { expect, test } from "bun:test";
import { existsSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { DEVPOCKET, type TestClient, TestServer, temporaryFolder } from "../harness.ts";
import { until } from "../until.ts";
import { filesIn, processesWith } from "./leftovers.ts";

/** Where in an environment's life the server is killed, and what its owner wants then. */
const MOMENTS = [
  { verb: "create", status: "creating", wanted: "running" },
  { verb: "create", status: "installing", wanted: "running" },
  { verb: "create", status: "running", wanted: "running" },
  { verb: "restart", status: "restarting", wanted: "running" },
  { verb: "stop", status: "stopping", wanted: "stopped" },
  { verb: "stop", status: "stopped", wanted: "stopped" },
  { verb: "delete", status: "terminated", wanted: "terminated" },
] as const;

type Moment = (typeof MOMENTS)[number];

/** A command that takes long enough to be killed in, and leaves jobs behind. */
const TEMPLATE = {
  name: "slow",
  display_name: "Slow",
  description: "Takes a moment to install",
  category: "operating_system",
  docker_image: null,
  default_port: 8080,
  default_resources: { cpu: "500m", memory: "256Mi", storage: "1Gi" },
  startup_commands: ["(exec -a devpocket-kill-test sleep 3600) & sleep 0.3", "echo kept >> file"],
};

for (const moment of MOMENTS) {
  test(`killed while ${moment.status} after ${moment.verb}, everything ends where its owner wanted it`, async () => {
    const dataDir = temporaryFolder();
    const first = await TestServer.start({ dataDir });
    const client = await first.signedIn();
    await client.post("/api/v1/templates", TEMPLATE, 201);
    const id = await bringTo(client, moment);
    await first.kill();

    const second = await TestServer.start({ dataDir });
    try {
      const after = await second.signedIn();
      const settled = async () => {
        const environment = await after.get(`/api/v1/environments/${id}`);
        return environment.status === moment.wanted && environment;
      };
      await until(settled, { timeoutMs: 20_000, message: `${id} did not become ${moment.wanted}` });
      if (moment.wanted === "terminated") {
        await until(() => !filesIn(dataDir).some((path) => path.includes(id)), { timeoutMs: 20_000 });
        await until(() => processesWith(id).length === 0, { timeoutMs: 20_000 });
      } else if (moment.wanted === "stopped") {
        await until(() => processesWith(id).length === 0, { timeoutMs: 20_000 });
      }
      await after.delete(`/api/v1/environments/${id}`, 204, { Prefer: "wait=20" });
      expect(filesIn(dataDir).filter((path) => path.includes(id))).toEqual([]);
      expect(processesWith(id)).toEqual([]);
    } finally {
      await second.stop();
      rmSync(dataDir, { recursive: true, force: true });
    }
  }, 60_000);
}

test("killed while installing and off for longer than that may take, it is installed all the same", async () => {
  const dataDir = temporaryFolder();
  const first = await TestServer.start({ dataDir });
  const client = await first.signedIn();
  await client.post("/api/v1/templates", TEMPLATE, 201);
  const id = await bringTo(client, { verb: "create", status: "installing", wanted: "running" });
  await first.kill();
  // As it would be after hours.
  using database = new Database(join(dataDir, "devpocket.db"));
  database.run("update environments set deadline_at = 1 where id = ? and status = 'installing'", [id]);
  expect(database.query("select changes() as n").get()).toEqual({ n: 1 });

  const second = await TestServer.start({ dataDir });
  try {
    const after = await second.signedIn();
    const settled = async () => {
      const { status } = await after.get(`/api/v1/environments/${id}`);
      return (status === "running" || status === "error") && status;
    };
    expect(await until(settled, { timeoutMs: 20_000 })).toBe("running");
  } finally {
    await second.stop();
    rmSync(dataDir, { recursive: true, force: true });
  }
}, 60_000);

test("a server that was killed and that nobody has reaped yet is in no other's way", async () => {
  const dataDir = temporaryFolder();
  // The shell becomes a program that never asks what has become of its children.
  const keeper = ["sh", "-c", '"$@" & echo "pid $!"; exec sleep 600', "sh", ...DEVPOCKET];
  const first = await TestServer.start({ dataDir, command: keeper });
  try {
    const [, pid = ""] = await first.output.line(/pid (\d+)/);
    process.kill(Number(pid), "SIGKILL");
    await until(() => readFileSync(`/proc/${pid}/stat`, "utf8").includes(") Z "));
    const second = await TestServer.start({ dataDir });
    expect(existsSync(`/proc/${pid}`)).toBe(true);
    expect(await second.stop()).toBe(0);
  } finally {
    await first.kill();
    rmSync(dataDir, { recursive: true, force: true });
  }
});

/** Brings a new environment to the moment, and gives its id without waiting for what comes next. */
async function bringTo(client: TestClient, { verb, status }: Moment): Promise<string> {
  const created = await client.post("/api/v1/environments", { name: "one", template: "slow" }, 201);
  const id = String(created.id);
  const reach = (wanted: string) =>
    until(async () => (await client.get(`/api/v1/environments/${id}`)).status === wanted, {
      timeoutMs: 20_000,
    });
  if (verb === "create") {
    if (status !== "creating") await reach(status);
    return id;
  }
  await reach("running");
  if (verb === "delete") await client.delete(`/api/v1/environments/${id}`);
  else await client.post(`/api/v1/environments/${id}/${verb}`);
  if (status === "stopped") await reach("stopped");
  return id;
}
