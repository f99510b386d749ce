import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { KubeConfig } from "@kubernetes/client-node";
import { reduceKubeconfig } from "../../../src/clusters/kubeconfig.ts";
import { vetCluster } from "../../../src/clusters/vetting.ts";
import { Semaphore } from "../../../src/lib/semaphore.ts";
import { createKubeClient, type KubeClient } from "../../../src/runtime/kubernetes/api/client.ts";
import { connectionOf } from "../../../src/runtime/kubernetes/api/connection.ts";
import { serverManifests, toYaml } from "../../../src/runtime/kubernetes/manifests/deployment.ts";
import { PERMISSIONS } from "../../../src/runtime/kubernetes/manifests/permissions.ts";
import { until } from "../../until.ts";
import { kubectl } from "./kubectl.ts";

const kubeconfigFile = process.env.KUBECONFIG ?? "";
const namespace = `devpocket-manifests-${process.pid}`;
const account = `system:serviceaccount:${namespace}:devpocket`;
const manifests = serverManifests({ image: "devpocket:1.0.0", namespace });

/** Everything that an API server has, from its own discovery: "pods/exec" of group "" and so on. */
async function allResources(client: KubeClient): Promise<{ group: string; name: string; verbs: string[] }[]> {
  interface Resources {
    resources: { name: string; verbs: string[] }[];
  }
  const groups = await client.get<{ groups: { name: string; preferredVersion: { groupVersion: string } }[] }>(
    "/apis",
  );
  const paths = [
    { group: "", path: "/api/v1" },
    ...(groups?.groups ?? []).map(({ name, preferredVersion }) => ({
      group: name,
      path: `/apis/${preferredVersion.groupVersion}`,
    })),
  ];
  const lists = await Promise.all(
    paths.map(async ({ group, path }) => {
      const found = await client.get<Resources>(path);
      return (found?.resources ?? []).map(({ name, verbs }) => ({ group, name, verbs }));
    }),
  );
  return lists.flat();
}

describe.if(Boolean(kubeconfigFile))("the server's own manifests, applied to a cluster", () => {
  let admin: KubeClient;
  let token: string;

  beforeAll(async () => {
    const kubeConfig = new KubeConfig();
    kubeConfig.loadFromFile(kubeconfigFile);
    admin = createKubeClient(connectionOf(kubeConfig));
    await kubectl(["apply", "-f", "-"], toYaml(manifests));
    token = await kubectl(["create", "token", "devpocket", "--namespace", namespace]);
  });

  afterAll(async () => {
    await kubectl(["delete", "--ignore-not-found", "--wait=false", "-f", "-"], toYaml(manifests));
  });

  function asAccount(): string {
    const kubeConfig = new KubeConfig();
    kubeConfig.loadFromFile(kubeconfigFile);
    const cluster = kubeConfig.getCurrentCluster();
    return reduceKubeconfig(
      JSON.stringify({
        "current-context": "c",
        contexts: [{ name: "c", context: { cluster: "c", user: "u" } }],
        clusters: [
          { name: "c", cluster: { server: cluster?.server, "certificate-authority-data": cluster?.caData } },
        ],
        users: [{ name: "u", user: { token } }],
      }),
    );
  }

  test("the same is applied again without a change", async () => {
    const said = await kubectl(["apply", "-f", "-"], toYaml(manifests));
    expect(said.split("\n").filter((line) => !line.endsWith(" unchanged"))).toEqual([]);
  });

  test("their service account is fit for DevPocket", async () => {
    await vetCluster(asAccount());
  });

  test("it may do nothing else: every verb on every resource of the cluster is asked about", async () => {
    const places = new Semaphore(16);
    async function isAllowed(group: string, name: string, verb: string): Promise<boolean> {
      const [resource, subresource] = name.split("/");
      const attributes = { group, resource, verb, ...(subresource && { subresource }) };
      const body = {
        apiVersion: "authorization.k8s.io/v1",
        kind: "SubjectAccessReview",
        spec: {
          user: account,
          groups: ["system:serviceaccounts", "system:authenticated"],
          resourceAttributes: attributes,
        },
      };
      const path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
      const response = await places.run(() => admin.request("POST", path, { body }));
      const review: { status: { allowed: boolean } } = JSON.parse(await response.text());
      return review.status.allowed;
    }
    const granted = new Set(
      PERMISSIONS.flatMap(({ group, resource, subresource, verbs }) =>
        verbs.map((verb) => `${verb} ${group}/${resource}${subresource ? `/${subresource}` : ""}`),
      ),
    );
    const verbs = [
      "get",
      "list",
      "watch",
      "create",
      "update",
      "patch",
      "delete",
      "deletecollection",
      "impersonate",
      "bind",
      "escalate",
    ];
    const asked = (await allResources(admin)).flatMap(({ group, name }) =>
      verbs.map((verb) => ({ group, name, verb })),
    );
    // Rights that are no resources of discovery.
    asked.push(
      { group: "", name: "nodes/proxy", verb: "get" },
      { group: "", name: "users", verb: "impersonate" },
    );
    expect(asked.length).toBeGreaterThan(500);
    const allowed = await Promise.all(
      asked.map(async ({ group, name, verb }) =>
        (await isAllowed(group, name, verb)) ? [`${verb} ${group}/${name}`] : [],
      ),
    );
    // Depending on the cluster: metrics may not be installed, and everybody may ask about themselves.
    const besides = (right: string) =>
      !/ metrics\.k8s\.io\/|^create auth\w+\.k8s\.io\/selfsubject/.test(right);
    expect(allowed.flat().filter(besides).sort()).toEqual([...granted].filter(besides).sort());
  }, 120_000);

  test("what is taken from its role is named when it is vetted", async () => {
    const rules = await kubectl(["get", "clusterrole", namespace, "-o", "json"]);
    const role: { rules: { resources: string[] }[] } = JSON.parse(rules);
    role.rules = role.rules.filter(
      ({ resources }) => !resources.includes("networkpolicies") && !resources.includes("pods/exec"),
    );
    await kubectl(["replace", "-f", "-"], JSON.stringify(role));
    const expected =
      "DevPocket may not get pods/exec, create pods/exec, list networkpolicies.networking.k8s.io, watch networkpolicies.networking.k8s.io, create networkpolicies.networking.k8s.io, patch networkpolicies.networking.k8s.io there";
    await until(
      async () => (await vetCluster(asAccount()).catch((error: Error) => error.message)) === expected,
      { timeoutMs: 15_000 },
    );
  });

  test("a token that is not accepted is said to be so", async () => {
    const before = token;
    token = "not-a-token";
    try {
      expect(await vetCluster(asAccount()).catch((error: Error) => error.message)).toBe(
        "The cluster does not accept these credentials",
      );
    } finally {
      token = before;
    }
  });

  test("the server's pod is made and scheduled, with its volume bound", async () => {
    const pod = await until(
      async () => {
        const { items } = JSON.parse(await kubectl(["get", "pods", "--namespace", namespace, "-o", "json"]));
        return items.find((item: { spec: { nodeName?: string } }) => item.spec.nodeName);
      },
      { timeoutMs: 60_000, intervalMs: 500, message: "no pod was made and scheduled" },
    );
    expect(pod.spec.containers[0].securityContext.readOnlyRootFilesystem).toBe(true);
    expect(
      await kubectl(["get", "pvc", "devpocket", "--namespace", namespace, "-o", "jsonpath={.status.phase}"]),
    ).toBe("Bound");
  }, 90_000);
});
