import { expect, test } from "bun:test";
import { parseReduced, reduceKubeconfig } from "../../../src/clusters/kubeconfig.ts";
import { createLogger } from "../../../src/lib/logger.ts";
import { createKubernetesRuntime } from "../../../src/runtime/kubernetes/kubernetes.ts";
import { userManifests } from "../../../src/runtime/kubernetes/manifests/usermanifests.ts";
import { CONTAINER } from "../../../src/runtime/kubernetes/names.ts";
import { openCluster } from "../../stand-in-cluster.ts";
import { until } from "../../until.ts";

const REF = { environmentId: "e".repeat(24), userId: "a".repeat(24) };
const SPEC = {
  ...REF,
  name: "test",
  generation: 1,
  image: null,
  startupCommands: [],
  variables: {},
  resources: { cpuMillis: 100, memoryBytes: 2 ** 20, storageBytes: 2 ** 30 },
  port: 8080,
  capabilities: [],
  userQuota: null,
};

function runtimeOn(answer: (method: string, path: string) => Response | Promise<Response> | undefined) {
  const { kubeconfig } = openCluster({ answer });
  return createKubernetesRuntime({
    cluster: { kubeConfig: parseReduced(reduceKubeconfig(kubeconfig)) },
    log: createLogger({ format: "text", level: "error", write: () => {} }),
  });
}

test("a volume that somebody has deleted is let go of, and a new one is made and told of", async () => {
  const missing = () => new Response("", { status: 404 });
  let claim: (() => Response) | undefined;
  let deployed = false;
  const written: string[] = [];
  const runtime = runtimeOn((method, path) => {
    const [, kind = "namespaces"] = /\/namespaces\/[^/]+\/(\w+)/.exec(path) ?? [];
    if (method !== "GET") {
      if (["events", "persistentvolumeclaims", "deployments"].includes(kind))
        written.push(`${method} ${kind}`);
      return Response.json({ metadata: {} });
    }
    if (kind === "persistentvolumeclaims") return claim?.() ?? missing();
    if (kind === "deployments") return deployed ? Response.json({ metadata: { generation: 3 } }) : missing();
    return undefined;
  });
  const made = ["PATCH persistentvolumeclaims", "PATCH deployments"];
  await runtime.ensure(SPEC);
  expect(written.splice(0)).toEqual(made);
  deployed = true;
  const deletionTimestamp = "2026-01-01T00:00:00Z";
  claim = () => Response.json({ metadata: { deletionTimestamp }, spec: {} });
  const refusal = { kind: "missing", message: expect.stringContaining("volume was deleted") };
  expect(await runtime.ensure(SPEC).catch((error: unknown) => error)).toMatchObject(refusal);
  expect(written.splice(0)).toEqual(["PATCH deployments"]);
  claim = undefined;
  await runtime.ensure(SPEC);
  expect(written).toEqual(["POST events", ...made]);
  await runtime.close();
});

test.each([
  ["is made the manifest's own", true, ["apply", "replace", "apply"], null],
  ["is told of where nobody has changed anything", false, ["apply"], "The cluster refuses"],
])("a Deployment that can't be applied %s", async (_, isThere, expected, fault) => {
  const missing = () => new Response("", { status: 404 });
  const written: string[] = [];
  const runtime = runtimeOn((method, path) => {
    if (!path.includes("/deployments/")) {
      return method === "GET" && path.includes("/namespaces/")
        ? missing()
        : method === "GET"
          ? undefined
          : Response.json({ metadata: {} });
    }
    if (method === "GET")
      return isThere ? Response.json({ metadata: { generation: 3 }, spec: {} }) : missing();
    const isFirst = written.length === 0;
    written.push(written.length === 1 ? "replace" : "apply");
    return isFirst ? new Response("{}", { status: 422 }) : Response.json({ metadata: {} });
  });
  const refusal = await runtime.ensure(SPEC).then(
    () => null,
    (error: unknown) => error,
  );
  if (fault === null) expect(refusal).toBeNull();
  else expect(refusal).toMatchObject({ kind: "rejected", message: expect.stringContaining(fault) });
  expect(written).toEqual(expected);
  await runtime.close();
});

test.each([
  [2, ["DELETE pods/younger", "PATCH deployments"]],
  [1, []],
  [0, []],
])(
  "of an environment that is scaled to %d, mending leaves the container that has run longest alone",
  async (replicas, scaled) => {
    const written: string[] = [];
    const metadata = (name: string, hour: number) => ({
      metadata: { name, namespace: "n", creationTimestamp: `2026-01-01T0${hour}:00:00Z` },
    });
    const started = { name: CONTAINER, state: { running: {} }, started: true };
    const running = { spec: { containers: [] }, status: { containerStatuses: [started] } };
    const pods = [
      { ...metadata("younger", 2), ...running },
      { ...metadata("older", 1), ...running },
    ];
    const deployment = {
      metadata: { resourceVersion: "7" },
      spec: { replicas, template: { spec: { containers: [] } } },
    };
    const runtime = runtimeOn((method, path) => {
      const [, kind = "namespaces", name] = /\/namespaces\/[^/]+\/(\w+)(?:\/(\w+))?/.exec(path) ?? [];
      if (method === "GET") {
        if (!path.includes("/namespaces/")) return undefined;
        if (kind === "pods") return Response.json({ metadata: {}, items: pods });
        return kind === "deployments" ? Response.json(deployment) : undefined;
      }
      written.push(kind === "pods" ? `${method} ${kind}/${name}` : `${method} ${kind}`);
      const { networkPolicy } = userManifests(REF.userId, null, "default");
      return Response.json(kind === "networkpolicies" ? networkPolicy : { metadata: {} });
    });
    await runtime.mend?.(SPEC);
    const common = ["namespaces", "serviceaccounts", "limitranges", "networkpolicies"];
    // Once more for the policy: its empty list of what may come in is one here, which no API server gives back.
    const policy = ["PATCH networkpolicies"];
    const all = [...common.map((kind) => `PATCH ${kind}`), "DELETE resourcequotas", ...policy, ...scaled];
    expect(written.toSorted()).toEqual(all.toSorted());
    expect(written.slice(written.length - scaled.length)).toEqual(scaled);
    await runtime.close();
  },
);

test.each([
  ["of the environment", /configmaps/, /secrets/],
  ["of the user", /limitranges/, /networkpolicies/],
])("no write %s is still on its way when another one has failed", async (_whose, fails, lingers) => {
  const slow = Promise.withResolvers<void>();
  const began = Promise.withResolvers<void>();
  const runtime = runtimeOn((method, path) => {
    if (method === "GET" && path.includes("/namespaces/")) return new Response("", { status: 404 });
    if (method === "PATCH" && fails.test(path)) return new Response("", { status: 500 });
    if (method !== "PATCH" || !lingers.test(path)) return undefined;
    began.resolve();
    return slow.promise.then(() => Response.json({ metadata: {} }));
  });
  let ended = false;
  const ensured = runtime.ensure(SPEC).finally(() => {
    ended = true;
  });
  ensured.catch(() => {});
  await began.promise;
  // The other one has been answered by the time that a look at the cluster has been.
  await runtime.capacity();
  expect(ended).toBe(false);
  slow.resolve();
  await until(() => ended);
  expect(ensured).rejects.toThrow("The cluster can't do that now");
  await runtime.close();
});

test("an API server that has nothing of a kind lists null, and refuses to list secrets: nothing is found", async () => {
  const list = (items: object[] | null) => Response.json({ metadata: {}, items });
  const runtime = runtimeOn((_, path) => {
    if (path === "/api/v1/secrets") return Response.json({ code: 403 }, { status: 403 });
    return list(path === "/api/v1/namespaces" ? [] : null);
  });
  expect(await runtime.list()).toEqual([]);
  await runtime.close();
});
