import { KubeConfig } from "@kubernetes/client-node";
import { connectionOf } from "../../../src/runtime/kubernetes/api/connection.ts";
import { ENVIRONMENT_LABEL } from "../../../src/runtime/kubernetes/names.ts";
import { kubectl } from "../../runtime/kubernetes/kubectl.ts";
import type { Link } from "./links.ts";
import { startServer } from "./targets.ts";

/** An environment on the cluster that KUBECONFIG names, and the ways to a shell in its pod. */
export async function startOnCluster(kubeconfigFile: string) {
  const server = await startServer({ LOCAL_RUNTIME: "off", CLUSTER_KUBECONFIG_FILE: kubeconfigFile });
  const { admin } = server;
  await admin.post(
    "/api/v1/templates",
    {
      name: "bench",
      display_name: "Bench",
      description: "A shell",
      category: "operating_system",
      docker_image: process.env.BENCH_IMAGE ?? "debian:12",
      default_port: 8080,
      startup_commands: [],
    },
    201,
  );
  const resources = { cpu: "2000m", memory: "512Mi", storage: "1Gi" };
  const made = await server.environment("bench", { template: "bench", resources });
  const selector = `${ENVIRONMENT_LABEL}=${made.id}`;
  const [namespace = "", pod = ""] = (
    await kubectl([
      "get",
      "pods",
      "-A",
      "-l",
      selector,
      "-o",
      "jsonpath={.items[0].metadata['namespace','name']}",
    ])
  ).split(" ");
  return {
    ours: made.link,
    exec: await execLink(namespace, pod),
    kubectl: {
      kind: "kubectl",
      command: ["kubectl", "exec", "-it", "-n", namespace, pod, "--", "sh"],
    } as Link,
    async stop() {
      await admin.delete(`/api/v1/environments/${made.id}`, 204, { Prefer: "wait=60" });
      await server.stop();
    },
  };
}

async function execLink(namespace: string, pod: string): Promise<Link> {
  const config = new KubeConfig();
  config.loadFromDefault();
  const connection = connectionOf(config);
  const query = "command=sh&stdin=true&stdout=true&tty=true";
  const url = `${connection.server.replace(/^http/, "ws")}/api/v1/namespaces/${namespace}/pods/${pod}/exec?${query}`;
  const { headers, tls } = await connection.credentials();
  const { ca, cert, key } = tls;
  // As text: another process is told.
  const texts = Object.entries({ ca, cert, key }).flatMap(([name, value]) =>
    value ? [[name, String(value)]] : [],
  );
  return { kind: "exec", url, headers, tls: Object.fromEntries(texts) };
}
