import { afterAll, beforeAll, expect, test } from "bun:test";
import { FILLABLE, limitFiles, type TestClient, TestServer } from "../harness.ts";
import { until } from "../until.ts";

/* What DevPocket says of an installation, and what the installation prints, come to its log by two ways. */

let server: TestServer;
let admin: TestClient;
beforeAll(async () => {
  server = await TestServer.start();
  admin = await server.signedIn();
});
afterAll(() => server.stop());

interface Entry {
  timestamp: string;
  message: string;
  offset: number;
}

/** Brings up an environment with these commands, and reads its log on and on as a client without streams does. */
async function install(name: string, startup_commands: string[]) {
  const template = { name, display_name: name, category: "devops", docker_image: null, startup_commands };
  await admin.post("/api/v1/templates", template, 201);
  const { id } = await admin.post("/api/v1/environments", { name, template: name }, 201);
  const path = `/api/v1/environments/${id}`;
  const read = async (query: string): Promise<Entry[]> => {
    const response = await admin.raw("GET", `${path}/logs?lines=1000${query}`);
    const body: { logs: Entry[] } = JSON.parse(await response.text());
    return body.logs;
  };
  const polled = new Map<number, string>();
  let since = "1970-01-01T00:00:00Z";
  const poll = async () => {
    for (const { offset, message, timestamp } of await read(`&since=${since}`)) {
      polled.set(offset, message);
      since = timestamp;
    }
  };
  const ended = await until(async () => {
    await poll();
    const { status } = await admin.get(path);
    return status === "running" || status === "error" ? status : undefined;
  });
  const log = await until(async () => {
    const entries = await read("");
    return entries.some(({ message }) => message.includes("last words")) ? entries : undefined;
  });
  await poll();
  return { status: ended, log, polled };
}

test.each([
  {
    name: "runs",
    last: "for i in 1 2 3 4 5; do echo c$i; done; echo last words",
    says: "The environment runs",
  },
  { name: "crashes", last: 'echo last words; kill -9 "$PPID"', says: "ended unexpectedly" },
])("the log of an installation is in order, and who polls it misses nothing, when it $name", async (row) => {
  const { log, polled } = await install(row.name, ["echo a", "echo b", row.last]);
  const messages = log.map(({ message }) => message);
  const said = messages.findIndex((message) => message.includes(row.says));
  expect(messages.filter((message) => message.includes(row.says))).toHaveLength(1);
  expect(messages.slice(said + 1)).toEqual([]);
  const times = log.map(({ timestamp }) => timestamp);
  expect(times).toEqual(times.toSorted());
  expect([...polled.values()]).toEqual(messages);
});

test("lines that the disk did not take are told of where they are missing", async () => {
  const full = await TestServer.start({ command: FILLABLE });
  try {
    const client = await full.signedIn();
    const startup_commands = ["(i=0; while :; do i=$((i+1)); echo line $i; sleep 0.01; done) &"];
    const counting = {
      name: "counting",
      display_name: "c",
      category: "devops",
      docker_image: null,
      startup_commands,
    };
    await client.post("/api/v1/templates", counting, 201);
    const { id } = await client.environment({ name: "counting", template: "counting" });
    const stored = async () => {
      const response = await client.raw("GET", `/api/v1/environments/${id}/logs?lines=1000`);
      const body: { logs: Entry[] } = JSON.parse(await response.text());
      return body.logs.map(({ message }) => message);
    };
    await until(async () => (await stored()).includes("line 100"));
    limitFiles(full.pid, "4096");
    await full.output.line(/the log of a local environment can't be written/);
    limitFiles(full.pid, "unlimited");
    const told = /^(\d+) lines are missing here/;
    const logged = await until(async () => {
      const messages = await stored();
      const gap = messages.findIndex((message) => told.test(message));
      return gap > 0 && messages.length > gap + 10 ? messages : undefined;
    });
    let next = 1;
    for (const message of logged) {
      next += Number(told.exec(message)?.[1] ?? 0);
      const counted = /^line (\d+)$/.exec(message);
      if (counted) expect(Number(counted[1])).toBe(next++);
    }
    expect(next).toBeGreaterThan(100);
  } finally {
    limitFiles(full.pid, "unlimited");
    await full.stop();
  }
}, 30_000);
