import { expect, test } from "bun:test";
import { type TestClient, TestServer } from "../harness.ts";
import { until } from "../until.ts";

/** What a newcomer does, over HTTP and WebSocket, against a server that is started by `command`. */
export function mainJob(title: string, command: () => string[] | undefined): void {
  test(`${title}: sign in, create, watch it install, type, stop, start, find the files, delete`, async () => {
    const start = command();
    const server = await TestServer.start(start ? { command: start } : {});
    try {
      await newcomer(await server.signedIn());
    } finally {
      expect(await server.stop()).toBe(0);
    }
  }, 60_000);
}

async function newcomer(client: TestClient): Promise<void> {
  const template = await client.post(
    "/api/v1/templates",
    {
      name: "two-steps",
      display_name: "Two steps",
      description: "Installs in two steps",
      category: "operating_system",
      docker_image: null,
      default_port: 8080,
      default_resources: { cpu: "500m", memory: "256Mi", storage: "1Gi" },
      startup_commands: ["echo first step", "echo second step > installed"],
    },
    201,
  );
  const created = await client.post(
    "/api/v1/environments",
    { name: "my-first", template: template.name, environment_variables: { GREETING: "it's me" } },
    201,
  );
  const id = String(created.id);
  expect(created.status).toBe("creating");
  expect(created.installation_completed).toBe(false);

  const logs = await client.logs(id);
  await logs.message("installation_complete");
  const installed = logs.messages.filter(({ type }) => type === "installation_log").map(({ data }) => data);
  expect(installed.join("")).toContain("first step");

  const terminal = await client.terminal(id);
  const welcome = await terminal.message("welcome", (message) => typeof message.session_id === "string");
  expect(welcome.environment).toMatchObject({ id, name: "my-first", status: "running", pty_enabled: true });
  terminal.type("cat installed; echo kept > file; echo $GREETING\r");
  await terminal.prints("it's me");
  await terminal.prints("second step");
  terminal.send({ type: "resize", cols: 101, rows: 33 });
  terminal.type("stty size\r");
  await terminal.prints("33 101");
  terminal.type("sh -c 'echo sl\"\"eeping; exec sleep 1000'\r");
  await terminal.prints("sleeping");
  terminal.type("\x03");
  await terminal.prints("^C");
  terminal.type("echo inter''rupted\r");
  await terminal.prints("interrupted");

  const usage = await until(async () => {
    const measured = await client.get(`/api/v1/environments/${id}/metrics`);
    return Number(measured.memory_usage) > 0 && measured;
  });
  expect(usage.network_rx).toBeNull();

  const stopped = await client.post(`/api/v1/environments/${id}/stop`, {}, 200, { Prefer: "wait=20" });
  expect(stopped).toEqual({ message: "Environment stopped successfully", status: "stopped" });
  expect(await terminal.closes()).toEqual({ code: 1000, reason: "Environment stopped" });
  expect(await client.get(`/api/v1/environments/${id}`)).toMatchObject({ status: "stopped", cpu_usage: 0 });

  const started = await client.post(`/api/v1/environments/${id}/start`, {}, 200, { Prefer: "wait=20" });
  expect(started).toEqual({ message: "Environment started successfully", status: "running" });
  const again = await client.terminal(id);
  again.type("cat file\r");
  await again.prints("kept");
  again.type("exit 7\r");
  await again.message("exit", (message) => message.code === 7);
  expect((await again.closes()).code).toBe(1000);

  await client.delete(`/api/v1/environments/${id}`, 204, { Prefer: "wait=20" });
  expect(await client.list("/api/v1/environments")).toEqual([]);
  expect(await client.get(`/api/v1/environments/${id}`)).toMatchObject({ status: "terminated" });
  logs.close();
}
