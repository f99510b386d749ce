import { afterAll, beforeAll, expect, test } from "bun:test";
import { rmSync } from "node:fs";
import { type TestClient, TestServer, temporaryFolder } from "../harness.ts";
import { onCluster } from "../on-cluster.ts";
import { CountedStream, randomNumbers } from "../sockets/cuts.ts";
import { ResumingClient } from "../sockets/resuming-client.ts";
import { until } from "../until.ts";
import { ApiProxy } from "./api-proxy.ts";
import { template } from "./cluster.ts";

const TIMEOUT_MS = 150_000;
const KILLS = 4;

/* In a shell with a prompt, each begins with a line of its own; in two parts, so that its echo is not it. */
const COUNT = `stty -onlcr -echo; printf 'BEG%s\\n' IN; n=0; while :; do echo $n; n=$((n+1)); [ $((n % 50)) != 0 ] || sleep 0.01; done\n`;
const FLOOD = `stty -onlcr -echo; printf 'BEG%s\\n' IN; exec seq 0 1000000000\n`;
const ECHO = `stty raw -echo; printf 'BEG%s\\n' IN; exec cat\n`;

onCluster("a terminal on a cluster outlives the server:", () => {
  const dataDir = temporaryFolder();
  const random = randomNumbers(7);
  let way = new ApiProxy();
  let server: TestServer;
  let client: TestClient;
  let environmentId: string;

  async function startServer(): Promise<void> {
    server = await TestServer.start({
      dataDir,
      environment: {
        LOCAL_RUNTIME: "off",
        WS_MESSAGES_PER_MINUTE: "0",
      },
    });
    client = await server.signedIn();
  }

  beforeAll(async () => {
    await startServer();
    const cluster = { name: "there", provider: "test", region: "test", kubeconfig: way.kubeconfig };
    await client.post("/api/v1/clusters", cluster, 201);
    const { id, status } = await client.environment({
      name: "held",
      template: "ubuntu",
      resources: { cpu: "500m", memory: "128Mi", storage: "64Mi" },
    });
    environmentId = String(id);
    expect(status).toBe("running");
  }, TIMEOUT_MS);
  afterAll(async () => {
    await client.delete(`/api/v1/environments/${environmentId}`, 204, { Prefer: "wait=60" });
    await server.stop();
    rmSync(dataDir, { recursive: true, force: true });
    way.close();
  }, TIMEOUT_MS);

  /** A client whose stream is counted from the line on that `program` begins with. */
  async function counting(binary: boolean, program: string) {
    const stream = new CountedStream();
    let head = "";
    const resuming = new ResumingClient(
      (query) => {
        const parameters = new URLSearchParams({ token: client.token, ...asStrings(query) });
        return `${server.url.replace("http", "ws")}/api/v1/ws/terminal/${environmentId}?${parameters}`;
      },
      {
        binary,
        onOutput(bytes) {
          if (head.endsWith("BEGIN\n")) return stream.push(bytes);
          const text = head + Buffer.from(bytes).toString("latin1");
          const at = text.indexOf("BEGIN\n");
          head = at < 0 ? text : text.slice(0, at + 6);
          if (at >= 0) stream.push(Buffer.from(text.slice(at + 6), "latin1"));
        },
      },
    );
    resuming.type(Buffer.from(program));
    await until(() => head.endsWith("BEGIN\n"), { timeoutMs: 30_000, message: () => `no begin in ${head}` });
    return { stream, resuming };
  }

  async function restart(how: "kill" | "stop"): Promise<void> {
    if (how === "kill") await server.kill();
    else await server.stop();
    await startServer();
  }

  for (const binary of [false, true]) {
    const protocol = binary ? "binary" : "JSON";

    test(
      `${protocol} output goes on with the next byte after every kill`,
      async () => {
        const { stream, resuming } = await counting(binary, COUNT);
        for (let kill = 0; kill < KILLS; kill++) {
          const seen = stream.next + 100 + Math.floor(random() * 3000);
          await until(() => stream.next >= seen, { timeoutMs: 60_000 });
          await restart(kill === 1 ? "stop" : "kill");
        }
        const seen = stream.next;
        await until(() => stream.next > seen + 1000, { timeoutMs: 60_000 });
        resuming.close();
        expect({ gaps: resuming.gaps, losses: resuming.losses }).toEqual({ gaps: 0, losses: 0 });
        expect(resuming.connects).toBeGreaterThan(KILLS);
        await endAll(client, environmentId);
      },
      TIMEOUT_MS,
    );

    test(
      `${protocol} input is applied once, in order, whenever the server is killed`,
      async () => {
        const { stream, resuming } = await counting(binary, ECHO);
        let typed = 0;
        const typeSome = () => {
          if (resuming.unacknowledged > 100) return;
          const lines = Array.from({ length: 1 + Math.floor(random() * 60) }, () => `${typed++}\n`);
          resuming.type(Buffer.from(lines.join("")));
        };
        const typing = setInterval(typeSome, 2);
        for (let kill = 0; kill < KILLS; kill++) {
          const seen = stream.next + 500 + Math.floor(random() * 5000);
          await until(() => stream.next >= seen, { timeoutMs: 60_000 });
          await restart("kill");
        }
        clearInterval(typing);
        await until(() => stream.next === typed, {
          timeoutMs: 60_000,
          message: () => `${stream.next} of ${typed}`,
        });
        await until(() => resuming.unacknowledged === 0);
        resuming.close();
        expect({ gaps: resuming.gaps, losses: resuming.losses }).toEqual({ gaps: 0, losses: 0 });
        await endAll(client, environmentId);
      },
      TIMEOUT_MS,
    );
  }

  test(
    "a restarted server lists it with its age, and ends it",
    async () => {
      const before = await client.terminal(environmentId, "&cols=111&rows=22");
      const { session_id: sessionId } = await before.message("welcome");
      before.type("sleep 1000\n");
      await before.prints("sleep 1000");
      await restart("kill");
      const [listed, ...more] = await client.list(`/api/v1/environments/${environmentId}/terminals`);
      expect(more).toEqual([]);
      expect(listed).toMatchObject({
        session_id: sessionId,
        command: "sleep",
        cols: 111,
        rows: 22,
        attached: 0,
      });
      await endAll(client, environmentId);
      const after = await client.terminal(environmentId, `&session_id=${sessionId}&offset=0`);
      // It has ended, and is told so once more; or it is gone already, and another has begun.
      await after.until("end", () =>
        after.messages.some(({ type, resumed }) => type === "exit" || resumed === false),
      );
      after.close();
      await endAll(client, environmentId);
    },
    TIMEOUT_MS,
  );

  test(
    "an exit that nobody has heard of is told by the next server",
    async () => {
      const before = await client.terminal(environmentId);
      const { session_id: sessionId } = await before.message("welcome");
      before.type("sleep 3; echo la''st; exit 7\n");
      await before.prints("exit 7");
      await server.kill();
      await Bun.sleep(3_000);
      await startServer();
      const after = await client.terminal(environmentId, `&session_id=${sessionId}&offset=0`);
      expect(await after.message("welcome")).toMatchObject({ session_id: sessionId, resumed: true });
      expect((await after.message("exit")).code).toBe(7);
      expect(after.text).toContain("last\r\n");
    },
    TIMEOUT_MS,
  );

  test(
    "where nothing can hold it, it works, and its client is told that it has gone with the server",
    async () => {
      const image = template("no-perl", ["rm -f /usr/bin/perl*"]);
      await client.post("/api/v1/templates", image, 201);
      const { id, status } = await client.environment({ name: "no-perl", template: "no-perl" });
      expect(status).toBe("running");
      const before = await client.terminal(String(id));
      const { session_id: sessionId } = await before.message("welcome");
      before.type("echo $((6 * 7))\n");
      await before.prints("42");
      await restart("kill");
      const after = await client.terminal(String(id), `&session_id=${sessionId}&offset=0`);
      const welcome = await after.message("welcome");
      expect(welcome).toMatchObject({ resumed: false, offset: 0 });
      expect(welcome.session_id).not.toBe(sessionId);
      after.close();
      await client.delete(`/api/v1/environments/${id}`, 204, { Prefer: "wait=60" });
    },
    TIMEOUT_MS,
  );

  for (const { when, change } of [
    { when: "its connections to the cluster are cut", change: () => way.cut() },
    {
      when: "the cluster can't be reached for a while",
      async change() {
        const before = way.refusals;
        way.become("refused");
        await until(() => way.refusals > before + 10, { timeoutMs: 60_000 });
        way.become("fair");
      },
    },
    {
      when: "its cluster gets another kubeconfig",
      async change() {
        const before = way;
        way = new ApiProxy();
        await client.put("/api/v1/clusters/there", { kubeconfig: way.kubeconfig });
        before.close();
      },
    },
  ]) {
    test(
      `no client notices when ${when}`,
      async () => {
        const output = await counting(true, FLOOD);
        const input = await counting(false, ECHO);
        let typed = 0;
        const typing = setInterval(() => input.resuming.type(Buffer.from(`${typed++}\n`)), 5);
        for (let time = 0; time < 3; time++) {
          const [seen, echoed] = [output.stream.next, input.stream.next];
          await until(() => output.stream.next > seen + 100_000 && input.stream.next > echoed + 50, {
            timeoutMs: 60_000,
          });
          await change();
        }
        clearInterval(typing);
        const seen = output.stream.next;
        await until(() => output.stream.next > seen + 100_000 && input.stream.next === typed, {
          timeoutMs: 60_000,
          message: () => `${input.stream.next} of ${typed}`,
        });
        for (const { resuming } of [output, input]) {
          resuming.close();
          expect(resuming).toMatchObject({ connects: 1, gaps: 0, losses: 0 });
        }
        await endAll(client, environmentId);
      },
      TIMEOUT_MS,
    );
  }
});

/** Ends all terminals of an environment, and waits until they have. */
async function endAll(client: TestClient, environmentId: string): Promise<void> {
  const path = `/api/v1/environments/${environmentId}/terminals`;
  for (const { session_id } of await client.list(path)) await client.raw("DELETE", `${path}/${session_id}`);
  await until(async () => (await client.list(path)).length === 0);
}

function asStrings(query: Record<string, string | number>): Record<string, string> {
  return Object.fromEntries(Object.entries(query).map(([name, value]) => [name, String(value)]));
}
