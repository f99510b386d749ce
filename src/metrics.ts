import type { Registry } from "prom-client";

/** What is asked when Prometheus asks. */
export interface MetricsSources {
  environmentsByStatus(): Record<string, number>;
  /** How many are open. */
  websockets(): number;
  /** How many shells run in terminals. */
  terminals(): number;
  /** Environments that wait for the reconciler or are in its hands. */
  queueDepth(): number;
  databaseBytes(): number;
}

/** What the rooms tell through callbacks, and what Prometheus reads. */
export interface Metrics {
  /** @param answered its `route` is the template, never the path: a series for each id would have no end */
  request(answered: { method: string; route: string; status: number; durationMs: number }): void;
  /** @param change how long the environment was in `from` before it entered `to` */
  transition(change: { from: string; to: string; durationMs: number }): void;
  /** `in` is what clients type, `out` what they are sent. */
  terminalBytes(direction: "in" | "out", bytes: number): void;
  readonly contentType: string;
  render(): Promise<string>;
  stop(): void;
}

type Prom = typeof import("prom-client");

const LAG_EVERY_MS = 500;

/** Made only when metrics are on: prom-client takes tens of milliseconds to load, and the lag needs a timer. */
export async function createMetrics(version: string, sources: MetricsSources): Promise<Metrics> {
  const prom = await import("prom-client");
  const registry = new prom.Registry();
  const requests = new prom.Histogram({
    name: "devpocket_http_request_duration_seconds",
    help: "Time until the answer began, by route template and class of status",
    labelNames: ["method", "route", "status"] as const,
    buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60],
    registers: [registry],
  });
  const transitions = new prom.Histogram({
    name: "devpocket_environment_transition_duration_seconds",
    help: "Time that environments were in one status before they entered the next",
    labelNames: ["from", "to"] as const,
    buckets: [0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1200],
    registers: [registry],
  });
  const terminalBytes = { in: 0, out: 0 };
  addGauges(prom, registry, sources);
  addTerminalBytes(prom, registry, terminalBytes);
  addProcess(prom, registry, version);
  const lag = watchEventLoop(prom, registry);
  return {
    request: ({ method, route, status, durationMs }) =>
      requests.observe({ method, route, status: `${Math.floor(status / 100)}xx` }, durationMs / 1000),
    transition: ({ from, to, durationMs }) => transitions.observe({ from, to }, durationMs / 1000),
    terminalBytes: (direction, bytes) => {
      terminalBytes[direction] += bytes;
    },
    contentType: registry.contentType,
    render: () => registry.metrics(),
    stop: () => clearInterval(lag),
  };
}

function addGauges(prom: Prom, registry: Registry, sources: MetricsSources): void {
  new prom.Gauge({
    name: "devpocket_environments",
    help: "Environments by status",
    labelNames: ["status"],
    registers: [registry],
    collect() {
      this.reset();
      for (const [status, count] of Object.entries(sources.environmentsByStatus()))
        this.set({ status }, count);
    },
  });
  const add = (name: string, help: string, read: () => number) => addGauge(prom, registry, name, help, read);
  add("devpocket_websockets", "Open WebSockets", sources.websockets);
  add("devpocket_terminals", "Shells that run in terminals", sources.terminals);
  add("devpocket_reconcile_queue_depth", "Environments to be looked at", sources.queueDepth);
  add("devpocket_database_bytes", "Size of the database", sources.databaseBytes);
}

function addGauge(prom: Prom, registry: Registry, name: string, help: string, read: () => number): void {
  new prom.Gauge({
    name,
    help,
    registers: [registry],
    collect() {
      this.set(read());
    },
  });
}

/** Counted in plain numbers: it is done for every chunk of every terminal. */
function addTerminalBytes(prom: Prom, registry: Registry, bytes: Record<"in" | "out", number>): void {
  new prom.Counter({
    name: "devpocket_terminal_bytes_total",
    help: "Bytes typed into terminals and sent to their viewers",
    labelNames: ["direction"],
    registers: [registry],
    collect() {
      this.reset();
      this.inc({ direction: "in" }, bytes.in);
      this.inc({ direction: "out" }, bytes.out);
    },
  });
}

/** Under the names that every Prometheus client library uses. */
function addProcess(prom: Prom, registry: Registry, version: string): void {
  addGauge(prom, registry, "process_resident_memory_bytes", "Resident memory", () =>
    process.memoryUsage.rss(),
  );
  const started = performance.timeOrigin / 1000;
  addGauge(prom, registry, "process_start_time_seconds", "Start, since the epoch", () => started);
  new prom.Counter({
    name: "process_cpu_seconds_total",
    help: "User and system time",
    registers: [registry],
    collect() {
      const { user, system } = process.cpuUsage();
      this.reset();
      this.inc((user + system) / 1e6);
    },
  });
  new prom.Gauge({
    name: "devpocket_build_info",
    help: "Version of the server",
    labelNames: ["version"],
    registers: [registry],
  }).set({ version }, 1);
}

/** How late a timer is that should come every half second: what a request would have waited. */
function watchEventLoop(prom: Prom, registry: Registry): Timer {
  const lag = new prom.Histogram({
    name: "devpocket_event_loop_lag_seconds",
    help: "How late the event loop came to a timer, sampled twice a second",
    buckets: [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5],
    registers: [registry],
  });
  let due = performance.now() + LAG_EVERY_MS;
  const timer = setInterval(() => {
    const now = performance.now();
    lag.observe(Math.max(0, now - due) / 1000);
    due = now + LAG_EVERY_MS;
  }, LAG_EVERY_MS);
  timer.unref();
  return timer;
}
