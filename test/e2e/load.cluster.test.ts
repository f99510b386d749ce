import { afterAll, beforeAll, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { onCluster } from "../on-cluster.ts";
import { until } from "../until.ts";
import { asSeen, ClusterServer, countOf, template } from "./cluster.ts";

const COUNT = 60;
const MIB = 2 ** 20;

onCluster("under load", () => {
  let server: ClusterServer;
  beforeAll(async () => {
    server = await ClusterServer.start();
    const resources = { default_resources: { cpu: "100m", memory: "32Mi", storage: "64Mi" } };
    await server.client.post("/api/v1/templates", template("tiny", ["true"], resources), 201);
    await server.client.post("/api/v1/templates", template("plain", []), 201);
  });
  afterAll(() => server.close(), 280_000);

  test("200 MB come through a terminal byte for byte, in flat memory", async () => {
    const { client } = server;
    const bytes = 200_000_000;
    const { id } = await client.environment({ name: "stream", template: "plain" });
    const terminal = await client.terminal(String(id));
    await terminal.message("welcome", ({ session_id }) => typeof session_id === "string");
    terminal.type(`head -c ${bytes} /dev/urandom >data; sha256sum data; echo do''ne\r`);
    await terminal.until("the data", () => terminal.text.includes("done\r\n"), 60_000);
    const sum = /[0-9a-f]{64}(?= {2}data)/.exec(terminal.text)?.[0];
    terminal.close();

    const hash = createHash("sha256");
    let received = 0;
    let offset = 0;
    let acknowledged = 0;
    let begun = false;
    const socket = new WebSocket(
      `${client.url.replace(/^http/, "ws")}/api/v1/ws/terminal/${id}?token=${client.token}`,
      { protocols: ["devpocket.v1.binary"] },
    );
    socket.binaryType = "arraybuffer";
    socket.onmessage = ({ data }) => {
      if (typeof data === "string") {
        if (JSON.parse(data).type === "welcome")
          socket.send(Buffer.from("stty raw -echo; printf '>''>'; sleep 1; exec cat data\r"));
        return;
      }
      const chunk = new Uint8Array(data);
      offset += chunk.length;
      if (begun) {
        hash.update(chunk);
        received += chunk.length;
      } else begun = Buffer.from(chunk).toString("latin1").endsWith(">>");
      if (offset - acknowledged < 65_536) return;
      acknowledged = offset;
      socket.send(JSON.stringify({ type: "ack", offset }));
    };
    await until(() => begun, { timeoutMs: 30_000 });
    const before = residentBytes(server.process.pid);
    let peak = before;
    const began = performance.now();
    await until(
      () => {
        peak = Math.max(peak, residentBytes(server.process.pid));
        return received >= bytes || socket.readyState === WebSocket.CLOSED;
      },
      { timeoutMs: 120_000, message: () => `${received} bytes` },
    );
    const seconds = (performance.now() - began) / 1000;
    console.log(
      `200 MB: ${(bytes / 1e6 / seconds).toFixed(1)} MB/s, resident ${Math.round(before / MIB)} MiB before, at most ${Math.round(peak / MIB)} MiB`,
    );
    expect(received).toBe(bytes);
    expect(hash.digest("hex")).toBe(sum ?? "");
    expect(peak - before).toBeLessThan(64 * MIB);
    socket.close();
    await client.delete(`/api/v1/environments/${id}`);
  }, 240_000);

  test(`${COUNT} environments that are created at once all run`, async () => {
    const { client } = server;
    const began = performance.now();
    const names = Array.from({ length: COUNT }, (_, index) => `env-${index}`);
    await Promise.all(
      names.map((name) => client.post("/api/v1/environments", { name, template: "tiny" }, 201)),
    );
    const accepted = performance.now() - began;
    let all: ReturnType<typeof asSeen>[] = [];
    const run = async () => {
      all = (await client.list("/api/v1/environments?limit=200")).map(asSeen);
      return all.length === COUNT && all.every(({ status }) => status === "running");
    };
    await until(run, {
      timeoutMs: 270_000,
      intervalMs: 500,
      message: () => JSON.stringify(all.filter(({ status }) => status !== "running")),
    });
    const seconds = (ms: number) => (ms / 1000).toFixed(1);
    console.log(
      `${COUNT} environments: accepted in ${seconds(accepted)} s, all running after ${seconds(performance.now() - began)} s`,
    );
    expect(await countOf("pods", all[0]?.id ?? "")).toBe(1);
    await Promise.all(all.map(({ id }) => client.delete(`/api/v1/environments/${id}`)));
  }, 300_000);
});

function residentBytes(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  return Number(/VmRSS:\s+(\d+) kB/.exec(status)?.[1]) * 1024;
}
