/*
 * How long a new environment takes on a cluster, from the request until it runs, against kubectl with the
 * same manifests: `KUBECONFIG=… bun test/bench/cluster.ts [rounds]`.
 *
 * One at a time, DevPocket and kubectl in turns, each in a namespace of its own that is gone before the next
 * begins. Of kubectl two times are taken: until `kubectl wait` says that the Deployment is available, and
 * until a watch shows that the container's startup probe has succeeded, which is what DevPocket waits for;
 * Kubernetes 1.20 makes pods ready some time after it.
 */
import { newId } from "../../src/lib/ids.ts";
import { environmentManifests } from "../../src/runtime/kubernetes/manifests/manifests.ts";
import { userManifests } from "../../src/runtime/kubernetes/manifests/usermanifests.ts";
import { environmentName, namespaceName } from "../../src/runtime/kubernetes/names.ts";
import { ClusterServer, objectsOf, template } from "../e2e/cluster.ts";
import { kubectl } from "../runtime/kubernetes/kubectl.ts";
import { until } from "../until.ts";
import { quantile } from "./measure.ts";

const ROUNDS = Number(process.argv[2] ?? 7);
const QUOTA = { environments: 1, cpuMillis: 1000, memoryBytes: 2 * 2 ** 30, storageBytes: 20 * 2 ** 30 };

async function gone(userId: string): Promise<void> {
  const nothing = async () => (await objectsOf(userId)).length === 0;
  await until(nothing, { timeoutMs: 180_000, intervalMs: 500, message: `${userId} stays` });
}

async function byDevPocket(server: ClusterServer, round: number): Promise<number> {
  const user = await server.process.newUser(`user-${round}`);
  const { id: userId } = await user.get("/api/v1/users/me");
  const began = performance.now();
  const { id, status } = await user.environment({ name: "one", template: "plain" });
  const took = performance.now() - began;
  if (status !== "running") throw new Error(`the environment is ${status}`);
  await user.delete(`/api/v1/environments/${id}`);
  await gone(String(userId));
  return took;
}

async function byKubectl(): Promise<{ available: number; started: number }> {
  const spec = {
    environmentId: newId(),
    userId: newId(),
    name: "one",
    generation: 1,
    image: "debian:12",
    startupCommands: ["true"],
    variables: {},
    resources: { cpuMillis: 200, memoryBytes: 64 * 2 ** 20, storageBytes: 64 * 2 ** 20 },
    port: 8080,
    capabilities: [],
    userQuota: QUOTA,
  };
  const manifests = [
    ...Object.values(userManifests(spec.userId, spec.userQuota, "bench")),
    ...Object.values(environmentManifests(spec, "bench")),
  ].filter((manifest) => manifest !== null);
  const namespace = namespaceName(spec.userId);
  const list = JSON.stringify({ apiVersion: "v1", kind: "List", items: manifests });
  const began = performance.now();
  await kubectl(["apply", "-f", "-"], list);
  const times = await Promise.all([available(namespace, spec.environmentId), startupDone(namespace)]);
  const [availableAt, startedAt] = times;
  await kubectl(["delete", "namespace", namespace, "--wait=false"]);
  await gone(spec.userId);
  return { available: availableAt - began, started: startedAt - began };
}

async function available(namespace: string, environmentId: string): Promise<number> {
  const deployment = `deployment/${environmentName(environmentId)}`;
  await kubectl(["wait", "-n", namespace, "--for=condition=Available", "--timeout=120s", deployment]);
  return performance.now();
}

async function startupDone(namespace: string): Promise<number> {
  const path = '{.status.containerStatuses[0].started}{"\\n"}';
  const watch = Bun.spawn(["kubectl", "get", "pods", "-n", namespace, "-w", "-o", `jsonpath=${path}`]);
  const decoder = new TextDecoder();
  for await (const chunk of watch.stdout) {
    if (decoder.decode(chunk).includes("true")) break;
  }
  const at = performance.now();
  watch.kill();
  return at;
}

const server = await ClusterServer.start();
await server.client.post("/api/v1/templates", template("plain", ["true"]), 201);
const figures = { devpocket: [] as number[], available: [] as number[], started: [] as number[] };
for (let round = 1; round <= ROUNDS; round++) {
  const devpocket = await byDevPocket(server, round);
  const plain = await byKubectl();
  figures.devpocket.push(devpocket);
  figures.available.push(plain.available);
  figures.started.push(plain.started);
  const ms = (value: number) => `${Math.round(value)} ms`;
  console.log(
    `round ${round}: DevPocket ${ms(devpocket)}; kubectl apply, started ${ms(plain.started)}, available ${ms(plain.available)}`,
  );
}
await server.close();
const median = (values: number[]) => quantile(values, 0.5);
const ratio = (of: number[]) => (median(figures.devpocket) / median(of)).toFixed(2);
console.log(
  `median ratio to kubectl apply until started ${ratio(figures.started)}, with kubectl wait ${ratio(figures.available)}`,
);
