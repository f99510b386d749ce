import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createKubeClient } from "../../../src/runtime/kubernetes/api/client.ts";
import { connectionOf } from "../../../src/runtime/kubernetes/api/connection.ts";
import { kubeConfig } from "./cluster.ts";

/*
 * A small metrics server for the cluster that KUBECONFIG names, to be run where its API server can reach it:
 * like the one of Kubernetes it gives what kubelet has measured (https://github.com/kubernetes/metrics,
 * v1beta1), but of one pod at a time. It prints its port, and then each of its answers.
 */

const API = "/apis/metrics.k8s.io/v1beta1";

/** Kubelet's: k8s.io/kubelet/pkg/apis/stats/v1alpha1. */
interface Summary {
  pods: {
    podRef: { namespace: string; name: string };
    containers?: {
      name: string;
      cpu?: { usageNanoCores?: number };
      memory?: { workingSetBytes?: number };
    }[];
  }[];
}

export interface PodMetrics {
  metadata: { namespace: string; name: string };
  containers: { name: string; usage: { cpu: string; memory: string } }[];
}

const client = createKubeClient(connectionOf(kubeConfig()));

/** Undefined while kubelet has not measured it. */
async function metricsOf(namespace: string, name: string): Promise<PodMetrics | undefined> {
  const nodes = await client.list<{ metadata: { name?: string } }>("/api/v1/nodes");
  for (const { metadata } of nodes.items) {
    const summary = await client.get<Summary & { metadata: object }>(
      `/api/v1/nodes/${metadata.name}/proxy/stats/summary`,
    );
    const found = summary?.pods.find(({ podRef }) => podRef.namespace === namespace && podRef.name === name);
    const containers = found?.containers?.flatMap(({ name, cpu, memory }) => {
      const [nanoCores, bytes] = [cpu?.usageNanoCores, memory?.workingSetBytes];
      if (nanoCores === undefined || bytes === undefined) return [];
      return [{ name, usage: { cpu: `${nanoCores}n`, memory: `${Math.ceil(bytes / 1024)}Ki` } }];
    });
    if (!containers || containers.length === 0) continue;
    return { metadata: { namespace, name }, containers };
  }
  return undefined;
}

/** A key and a certificate of its own. */
function certificate(): { key: string; cert: string } {
  const folder = mkdtempSync(join(tmpdir(), "devpocket-test-"));
  const [key, cert] = [join(folder, "key"), join(folder, "crt")];
  Bun.spawnSync([
    ...["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"],
    ...["-keyout", key, "-out", cert, "-days", "2", "-subj", "/CN=localhost"],
  ]);
  const made = { key: readFileSync(key, "utf8"), cert: readFileSync(cert, "utf8") };
  rmSync(folder, { recursive: true });
  return made;
}

const server = Bun.serve({
  hostname: "localhost",
  port: 0,
  tls: certificate(),
  routes: {
    [API]: Response.json({
      kind: "APIResourceList",
      apiVersion: "v1",
      groupVersion: "metrics.k8s.io/v1beta1",
      resources: [
        { name: "pods", singularName: "", namespaced: true, kind: "PodMetrics", verbs: ["get", "list"] },
      ],
    }),
    [`${API}/namespaces/:namespace/pods/:name`]: async ({ params: { namespace = "", name = "" } }) => {
      const metrics = await metricsOf(namespace, name);
      if (!metrics) return Response.json({ kind: "Status", code: 404, reason: "NotFound" }, { status: 404 });
      console.log(JSON.stringify(metrics));
      return Response.json({
        kind: "PodMetrics",
        apiVersion: "metrics.k8s.io/v1beta1",
        ...metrics,
        timestamp: new Date().toISOString(),
        window: "10s",
      });
    },
  },
  fetch: () => Response.json({ kind: "Status", code: 404, reason: "NotFound" }, { status: 404 }),
});
console.log(server.port);
