import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { metricsRoutes, serveMetrics } from "../src/http/metrics.ts";
import { createMetrics, type Metrics } from "../src/metrics.ts";
import { serve } from "./http/server.ts";

const TOKEN = "a-token-of-some-length";
let metrics: Metrics;

beforeEach(async () => {
  metrics = await createMetrics("1.2.3", {
    environmentsByStatus: () => ({ running: 3, stopped: 1 }),
    websockets: () => 2,
    terminals: () => 5,
    queueDepth: () => 7,
    databaseBytes: () => 4096,
  });
});
afterEach(() => metrics.stop());

test("what the rooms tell and what they are asked is rendered", async () => {
  metrics.request({ method: "GET", route: "/api/v1/things/:id", status: 204, durationMs: 30 });
  metrics.request({ method: "GET", route: "/api/v1/things/:id", status: 200, durationMs: 3 });
  metrics.transition({ from: "installing", to: "running", durationMs: 2000 });
  metrics.terminalBytes("out", 1000);
  metrics.terminalBytes("out", 24);
  metrics.terminalBytes("in", 1);
  const text = await metrics.render();
  const duration = "devpocket_http_request_duration_seconds";
  for (const line of [
    `${duration}_count{method="GET",route="/api/v1/things/:id",status="2xx"} 2`,
    `${duration}_bucket{le="0.005",method="GET",route="/api/v1/things/:id",status="2xx"} 1`,
    'devpocket_environment_transition_duration_seconds_sum{from="installing",to="running"} 2',
    'devpocket_terminal_bytes_total{direction="out"} 1024',
    'devpocket_terminal_bytes_total{direction="in"} 1',
    'devpocket_environments{status="running"} 3',
    "devpocket_websockets 2",
    "devpocket_terminals 5",
    "devpocket_reconcile_queue_depth 7",
    "devpocket_database_bytes 4096",
    'devpocket_build_info{version="1.2.3"} 1',
  ]) {
    expect(text.split("\n")).toContain(line);
  }
  expect(text).toMatch(/^process_resident_memory_bytes [1-9]\d+$/m);
  // Asking twice counts nothing twice.
  expect(await metrics.render()).toContain('devpocket_terminal_bytes_total{direction="out"} 1024\n');
});

test("the event loop's lag is what a blocked timer was late", async () => {
  const end = performance.now() + 650;
  while (performance.now() < end);
  const lagged = async () =>
    /lag_seconds_bucket\{le="0.1"\} (\d+).*lag_seconds_count (\d+)/s.exec(await metrics.render());
  let [, quick, all] = (await lagged()) ?? [];
  while (all === "0") {
    await Bun.sleep(5);
    [, quick, all] = (await lagged()) ?? [];
  }
  expect([quick, all]).toEqual(["0", "1"]);
});

describe("are served", () => {
  const read = (url: string, token?: string) =>
    fetch(`${url}/metrics`, token === undefined ? {} : { headers: { Authorization: `Bearer ${token}` } });

  test("on the server's port to who has the token", async () => {
    await using server = serve({ routers: [metricsRoutes(metrics, TOKEN)], onAnswered: metrics.request });
    for (const token of [undefined, "", "wrong", `${TOKEN}x`]) {
      const refused = await read(server.url, token);
      expect(refused.status).toBe(401);
      expect(refused.headers.get("www-authenticate")).toBe("Bearer");
      expect(await refused.text()).not.toContain("devpocket_");
    }
    const response = await read(server.url, TOKEN);
    expect(response.status).toBe(200);
    expect(response.headers.get("content-type")).toStartWith("text/plain; version=0.0.4");
    expect(await response.text()).toContain('route="/metrics",status="4xx"} 4');
  });

  test("not at all without", async () => {
    await using server = serve();
    expect((await read(server.url)).status).toBe(404);
  });

  test.each([
    [undefined, undefined, 200],
    [TOKEN, undefined, 401],
    [TOKEN, "wrong", 401],
    [TOKEN, TOKEN, 200],
  ])("on a port of their own, with the token %p asked for and %p sent: %d", async (token, sent, status) => {
    const server = serveMetrics(metrics, { host: "127.0.0.1", port: 0, token });
    try {
      const url = `http://127.0.0.1:${server.port}`;
      expect((await read(url, sent)).status).toBe(status);
      expect((await fetch(`${url}/api/v1/info`)).status).toBe(404);
    } finally {
      await server.stop(true);
    }
  });
});
