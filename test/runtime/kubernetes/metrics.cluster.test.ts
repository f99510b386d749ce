import { afterAll, beforeAll, expect, test } from "bun:test";
import { join } from "node:path";
import { parseBytes, parseCpuMillis } from "../../../src/lib/quantity.ts";
import type { EnvironmentSpec, Usage } from "../../../src/runtime/runtime.ts";
import { Output } from "../../harness.ts";
import { apiServerPid, onCluster } from "../../on-cluster.ts";
import { until } from "../../until.ts";
import { type Cluster, openCluster, untilPhase } from "./cluster.ts";
import { kubectl } from "./kubectl.ts";
import type { PodMetrics } from "./metrics-server.ts";

const API_SERVICE = "v1beta1.metrics.k8s.io";
const TIMEOUT_MS = 150_000;
/** Kubelet measures every ten seconds, and twice for a rate. */
const MEASURED_MS = 60_000;

onCluster(
  "a cluster with metrics.k8s.io",
  () => {
    const cluster: Cluster = openCluster();
    const namespace = `devpocket-metrics-${process.pid}`;
    const metricsServer = Bun.spawn(
      [
        ...["nsenter", "--net", "--target", String(apiServerPid()), "--", process.execPath],
        join(import.meta.dir, "metrics-server.ts"),
      ],
      { stdout: "pipe", stderr: "pipe" },
    );
    const printed = new Output(metricsServer.stdout, metricsServer.stderr);
    let spec: EnvironmentSpec;

    beforeAll(async () => {
      const [, port] = await printed.line(/^(\d+)$/m);
      const service = { namespace, name: "metrics", port: Number(port) };
      const objects = [
        { apiVersion: "v1", kind: "Namespace", metadata: { name: namespace } },
        {
          apiVersion: "v1",
          kind: "Service",
          metadata: { namespace, name: service.name },
          spec: { type: "ExternalName", externalName: "localhost", ports: [{ port: service.port }] },
        },
        {
          apiVersion: "apiregistration.k8s.io/v1",
          kind: "APIService",
          metadata: { name: API_SERVICE },
          spec: {
            group: "metrics.k8s.io",
            version: "v1beta1",
            groupPriorityMinimum: 100,
            versionPriority: 100,
            insecureSkipTLSVerify: true,
            service,
          },
        },
      ];
      const list = { apiVersion: "v1", kind: "List", items: objects };
      await kubectl(["apply", "-f", "-"], JSON.stringify(list));
      await kubectl(["wait", "--for=condition=Available", "--timeout=60s", `apiservice/${API_SERVICE}`]);
      const command = "nohup sh -c 'while :; do :; done' >/dev/null 2>&1 &";
      spec = cluster.spec({ startupCommands: [command] });
      await cluster.runtime.ensure(spec);
      await untilPhase(cluster.runtime, spec, "running");
    }, TIMEOUT_MS);

    afterAll(async () => {
      // While an API can't be asked what it has, no namespace can end.
      await kubectl(["delete", "--ignore-not-found", `apiservice/${API_SERVICE}`, `namespace/${namespace}`]);
      metricsServer.kill();
      await metricsServer.exited;
      await cluster.close();
    }, TIMEOUT_MS);

    function answers(): Pick<Usage, "cpuMillis" | "memoryBytes">[] {
      const lines = printed.text.split("\n").filter((line) => line.startsWith("{"));
      return lines.map((line) => {
        const { containers }: PodMetrics = JSON.parse(line);
        const { cpu = "", memory = "" } = containers[0]?.usage ?? {};
        return { cpuMillis: parseCpuMillis(cpu) ?? null, memoryBytes: parseBytes(memory) ?? null };
      });
    }

    test(
      "tells what an environment uses, and the container the rest",
      async () => {
        const busy = async () => {
          const usage = await cluster.runtime.usage(spec);
          return answers().length > 0 && (usage?.cpuMillis ?? 0) > 300 && usage;
        };
        const usage = await until(busy, { timeoutMs: MEASURED_MS, intervalMs: 500 });
        expect(answers().at(-1)).toEqual({ cpuMillis: usage.cpuMillis, memoryBytes: usage.memoryBytes });
        expect(usage.networkRxBytes).toBeGreaterThanOrEqual(0);
        expect(usage.storageBytes).toBeGreaterThanOrEqual(0);
      },
      TIMEOUT_MS,
    );

    test(
      "is not needed: when it has gone, the container tells all",
      async () => {
        const before = answers().length;
        metricsServer.kill();
        await metricsServer.exited;
        const usage = await cluster.runtime.usage(spec);
        expect(usage?.cpuMillis).toBeWithin(100, 1000);
        expect(usage?.memoryBytes).toBeGreaterThan(0);
        expect(answers().length).toBe(before);
      },
      TIMEOUT_MS,
    );
  },
  apiServerPid() !== null,
);
