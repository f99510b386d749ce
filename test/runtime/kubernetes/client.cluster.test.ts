import { expect, test } from "bun:test";
import { AuthorizationV1Api, KubeConfig, VersionApi } from "@kubernetes/client-node";
import { createKubeClient } from "../../../src/runtime/kubernetes/api/client.ts";
import { connectionOf } from "../../../src/runtime/kubernetes/api/connection.ts";
import { RuntimeUnreachable } from "../../../src/runtime/runtime.ts";
import { onCluster } from "../../on-cluster.ts";

function kubeConfig(change: (config: KubeConfig) => KubeConfig = (config) => config): KubeConfig {
  const config = new KubeConfig();
  config.loadFromFile(process.env.KUBECONFIG ?? "");
  return change(config);
}

function withServer(config: KubeConfig, change: { server?: string; caData?: string }): KubeConfig {
  const changed = new KubeConfig();
  changed.loadFromOptions({
    clusters: config.clusters.map((cluster) => ({ ...cluster, ...change })),
    users: config.users,
    contexts: config.contexts,
    currentContext: config.currentContext,
  });
  return changed;
}

const client = (config: KubeConfig) => createKubeClient(connectionOf(config));

onCluster("the client of a real API server", () => {
  test("has the library's typed clients", async () => {
    const kube = client(kubeConfig());
    expect((await kube.api(VersionApi).getCode()).gitVersion).toStartWith("v");
    const review = await kube.api(AuthorizationV1Api).createSelfSubjectAccessReview({
      body: {
        apiVersion: "authorization.k8s.io/v1",
        kind: "SelfSubjectAccessReview",
        spec: { resourceAttributes: { verb: "create", resource: "namespaces" } },
      },
    });
    expect(review.status?.allowed).toBe(true);
  });

  test("applies, reads and deletes", async () => {
    const kube = client(kubeConfig());
    const path = `/api/v1/namespaces/default/configmaps/client-test-${crypto.randomUUID()}`;
    const manifest = {
      apiVersion: "v1",
      kind: "ConfigMap",
      metadata: { name: path.split("/").at(-1) ?? "" },
      data: { a: "ä" },
    };
    await kube.apply(path, manifest);
    await kube.apply(path, manifest);
    expect(await kube.get<{ data: unknown }>(path)).toMatchObject({ data: { a: "ä" } });
    await kube.delete(path);
    await kube.delete(path);
    expect(await kube.get(path)).toBeNull();
  });

  test("watches, with one decoder for characters split over reads", async () => {
    const kube = client(kubeConfig());
    const name = `watch-test-${crypto.randomUUID()}`;
    const path = "/api/v1/namespaces/default/configmaps";
    const text = "ü€𝄞".repeat(40_000);
    const list = await kube.list(path);
    await kube.apply(`${path}/${name}`, {
      apiVersion: "v1",
      kind: "ConfigMap",
      metadata: { name },
      data: { text },
    });
    const stop = new AbortController();
    try {
      const query = {
        resourceVersion: list.metadata.resourceVersion,
        fieldSelector: `metadata.name=${name}`,
      };
      for await (const event of kube.watch<{ data: { text: string } }>(path, query, stop.signal)) {
        if (event.type !== "ADDED") continue;
        expect(event.object.data.text === text).toBe(true);
        break;
      }
    } finally {
      stop.abort();
      await kube.delete(`${path}/${name}`);
    }
  });

  test.each([
    ["nothing listens", { server: "https://127.0.0.1:9" }, "connection refused"],
    ["the certificate is not trusted", { caData: "" }, "its TLS certificate is not trusted"],
  ])("says that it can't be reached when %s", async (_, change, words) => {
    const request = client(kubeConfig((config) => withServer(config, change))).request("GET", "/version");
    const error = await request.catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(RuntimeUnreachable);
    expect(String(error)).toContain(words);
  });
});
