import { afterAll, beforeAll, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { type TestClient, TestServer } from "../harness.ts";
import { onCluster } from "../on-cluster.ts";
import { until } from "../until.ts";
import {
  ClusterServer,
  countOf,
  inTerminal,
  KUBECONFIG,
  logOf,
  objectsOf,
  reaches,
  template,
  touch,
} from "./cluster.ts";

onCluster("the main job on a real cluster", () => {
  let server: ClusterServer;
  let client: TestClient;
  beforeAll(async () => {
    server = await ClusterServer.start();
    client = server.client;
  });
  afterAll(() => server.close(), 150_000);

  test("create, watch it install, type, stop, start, find the file, delete, and nothing is left", async () => {
    // A cluster tells of a container's start up to a second late: the first command waits to be seen.
    const first = "echo first; until [ -e seen ]; do sleep 0.1; done";
    const commands = [first, "echo second >installed; sleep 1", "echo third; sleep 1"];
    await client.post("/api/v1/templates", template("steps", commands), 201);
    const created = await client.post(
      "/api/v1/environments",
      { name: "my-first", template: "steps", environment_variables: { GREETING: "it's me" } },
      201,
    );
    const id = String(created.id);
    expect(created).toMatchObject({ status: "creating", installation_completed: false, progress: 0 });
    const logs = await client.logs(id);

    const history = await reaches(client, id, "running", 60_000, async ({ message }) => {
      if (message?.startsWith("Step 1 of 3")) await touch(id, "/workspace/seen");
    });
    expect([...new Set(history.map(({ status }) => status))]).toEqual(
      ["creating", "provisioning", "installing", "configuring", "running"].filter((status) =>
        // What passes in less than a look may not be seen.
        ["creating", "configuring"].includes(status) ? history.some((one) => one.status === status) : true,
      ),
    );
    const progress = history.map((one) => one.progress);
    expect(progress).toEqual(progress.toSorted((a, b) => a - b));
    expect(progress.at(-1)).toBe(100);
    const steps = history.filter(({ status }) => status === "installing").map(({ message }) => message);
    for (const [index, command] of commands.entries()) {
      expect(steps).toContain(`Step ${index + 1} of 3: ${command}`);
    }
    await logs.message("installation_complete");
    expect((await logOf(client, id, "container")).join("\n")).toBe(
      commands
        .flatMap((command, index) => {
          const output = /echo (\w+);/.exec(command)?.[1];
          return [
            `==> [${index + 1}/3] ${command}`,
            ...(output ? [output] : []),
            `==> [${index + 1}/3] exit code 0`,
          ];
        })
        .join("\n"),
    );
    const system = (await logOf(client, id, "system")).join("\n");
    for (const words of ["Starting steps (debian:12)", "Scheduled", "Started", "The environment runs"]) {
      expect(system).toContain(words);
    }

    const terminal = await client.terminal(id);
    await terminal.message("welcome", ({ session_id }) => typeof session_id === "string");
    terminal.type("cat installed; echo kept >file; echo $GREETING $(hostname)\r");
    await terminal.prints("it's me my-first");
    await terminal.prints("second");
    terminal.send({ type: "resize", cols: 101, rows: 33 });
    await until(async () => {
      terminal.type("stty size\r");
      return Promise.race([terminal.prints("33 101"), Bun.sleep(500)]);
    });
    terminal.type("sh -c 'echo sl\"\"eeping; exec sleep 1000'\r");
    await terminal.prints("sleeping");
    terminal.type("\x03");
    terminal.type("echo inter''rupted\r");
    await terminal.prints("interrupted");

    const usage = await until(
      async () => {
        const measured = await client.get(`/api/v1/environments/${id}/metrics`);
        return Number(measured.memory_usage) > 0 && measured;
      },
      { timeoutMs: 20_000, intervalMs: 200 },
    );
    expect(usage).toMatchObject({ cpu_usage: expect.any(Number), storage_usage: expect.any(Number) });
    expect(Number(usage.memory_usage)).toBeWithin(0, 101);
    expect(Number(usage.uptime)).toBeGreaterThan(0);
    expect(Number(usage.network_rx)).toBeGreaterThanOrEqual(0);

    const stopped = await client.post(`/api/v1/environments/${id}/stop`, {}, 200, { Prefer: "wait=60" });
    expect(stopped).toEqual({ message: "Environment stopped successfully", status: "stopped" });
    expect(await terminal.closes()).toEqual({ code: 1000, reason: "Environment stopped" });
    expect(await countOf("pods", id)).toBe(0);
    expect(await countOf("pvc", id)).toBe(1);
    expect((await logOf(client, id)).join("\n")).toContain("third");

    const started = await client.post(`/api/v1/environments/${id}/start`, {}, 200, { Prefer: "wait=60" });
    expect(started).toEqual({ message: "Environment started successfully", status: "running" });
    expect(await inTerminal(client, id, "cat file")).toBe("kept\n");

    await client.delete(`/api/v1/environments/${id}`, 204, { Prefer: "wait=60" });
    logs.close();
    expect(await client.get(`/api/v1/environments/${id}`)).toMatchObject({ status: "terminated" });
    await server.leavesNothing(20_000);
  }, 180_000);

  test("a change is applied by a restart, which keeps the files and the terminal's socket", async () => {
    await client.post("/api/v1/templates", template("plain", []), 201);
    const { id } = await client.environment({ name: "changing", template: "plain" });
    const terminal = await client.terminal(String(id));
    const first = await terminal.message("welcome", ({ session_id }) => typeof session_id === "string");
    terminal.type("echo kept >file; echo ke''pt\r");
    await terminal.prints("kept\r\n");
    const changed = await client.put(`/api/v1/environments/${id}`, {
      environment_variables: { COLOUR: "blue" },
      resources: { memory: "96Mi" },
    });
    expect(changed).toMatchObject({ status: "running", restart_required: true });
    const answer = await client.post(`/api/v1/environments/${id}/restart`, {}, 200, { Prefer: "wait=60" });
    expect(answer).toEqual({ message: "Environment restarted successfully", status: "running" });
    const again = await client.get(`/api/v1/environments/${id}`);
    expect(again).toMatchObject({ restart_required: false, status_message: null, progress: 100 });
    await terminal.message(
      "welcome",
      ({ session_id }) => typeof session_id === "string" && session_id !== first.session_id,
    );
    terminal.type(
      "cat file; echo $COLOUR $(cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null)\r",
    );
    await terminal.prints(`blue ${96 * 2 ** 20}`);
    expect(terminal.text).toContain("kept");
    terminal.close();
  }, 120_000);

  test("environments of two people share nothing, and go one by one", async () => {
    const ada = await server.process.newUser("ada");
    const bob = await server.process.newUser("bob");
    const [ofAda, ofBob] = await Promise.all(
      [ada, bob].map((user) => user.environment({ name: "mine", template: "plain" })),
    );
    expect([ofAda?.status, ofBob?.status]).toEqual(["running", "running"]);
    await bob.get(`/api/v1/environments/${ofAda?.id}`, 404);
    const ids = await Promise.all(
      [ada, bob].map(async (user) => String((await user.get("/api/v1/users/me")).id)),
    );
    await ada.delete(`/api/v1/environments/${ofAda?.id}`, 204, { Prefer: "wait=60" });
    expect(await objectsOf(ids[0] ?? "")).toEqual([]);
    expect(await countOf("deployments", String(ofBob?.id))).toBe(1);
    await bob.delete("/api/v1/users/me", 200);
    await until(async () => (await objectsOf(ids[1] ?? "")).length === 0, {
      timeoutMs: 60_000,
      intervalMs: 500,
    });
  }, 120_000);
});

onCluster("a cluster that is registered over the API", () => {
  test("takes the environments from the local runtime", async () => {
    const server = await TestServer.start();
    try {
      const client = await server.signedIn();
      const kubeconfig = readFileSync(KUBECONFIG).toString("base64");
      const cluster = await client.post(
        "/api/v1/clusters",
        { name: "kube", provider: "bare metal", region: "here", kubeconfig },
        201,
      );
      expect(cluster).toMatchObject({ status: "active", kubeconfig: "[ENCRYPTED]" });
      expect(await client.get("/api/v1/clusters/kube/health")).toMatchObject({ status: "healthy" });
      const { id, ...environment } = await client.environment({ name: "there", template: "shell" });
      expect(environment).toMatchObject({ cluster_id: cluster.id, status: "running", docker_image: null });
      expect(await inTerminal(client, String(id), "echo $PWD")).toBe("/workspace\n");
      await client.delete("/api/v1/clusters/kube", 409);
      await client.delete(`/api/v1/environments/${id}`, 204, { Prefer: "wait=60" });
      await client.delete("/api/v1/clusters/kube");
    } finally {
      await server.stop();
    }
  }, 120_000);
});
