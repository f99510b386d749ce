import { describe, expect, test } from "bun:test";
import type { Manifest } from "../../../src/runtime/kubernetes/api/objects.ts";
import { serverManifests, toYaml } from "../../../src/runtime/kubernetes/manifests/deployment.ts";
import { serverLabels } from "../../../src/runtime/kubernetes/names.ts";

const manifests = serverManifests({ image: "registry.example.org/devpocket:1.0.0" });

function ofKind(kind: string): Manifest {
  const found = manifests.find((manifest) => manifest.kind === kind);
  if (!found) throw new Error(`no ${kind}`);
  return found;
}

describe("the server's own manifests", () => {
  test("come in an order in which they can be applied", () => {
    expect(manifests.map(({ kind }) => kind)).toEqual([
      "Namespace",
      "ServiceAccount",
      "ClusterRole",
      "ClusterRoleBinding",
      "PersistentVolumeClaim",
      "Service",
      "Deployment",
    ]);
  });

  test("are what they were after a journey through YAML, for parsers of 1.1 too", () => {
    const yaml = toYaml(manifests);
    const documents = yaml.split("---\n").filter(Boolean);
    expect(documents.map((document) => Bun.YAML.parse(document))).toEqual(manifests);
    expect(yaml).toContain('value: "off"');
    expect(yaml).toContain('value: "8000"');
  });

  test("are no environment's: the sweep, which goes by labels, never takes them", () => {
    for (const { metadata } of manifests) {
      for (const name of Object.keys(serverLabels("any")))
        expect(metadata.labels ?? {}).not.toHaveProperty(name);
    }
  });

  test("two servers in one cluster share nothing", () => {
    const key = ({ kind, metadata }: Manifest) => `${kind} ${metadata.namespace ?? ""}/${metadata.name}`;
    const other = serverManifests({ image: "x", namespace: "other" }).map(key);
    expect(manifests.map(key).filter((one) => other.includes(one))).toEqual([]);
  });

  test("the one database has one writer, which may write nowhere else and is not root", () => {
    expect(ofKind("Deployment")).toMatchObject({
      spec: {
        replicas: 1,
        strategy: { type: "Recreate" },
        template: {
          spec: {
            securityContext: { runAsNonRoot: true, seccompProfile: { type: "RuntimeDefault" } },
            containers: [
              {
                image: "registry.example.org/devpocket:1.0.0",
                readinessProbe: { httpGet: { path: "/health/ready" } },
                livenessProbe: { httpGet: { path: "/health/live" } },
                securityContext: {
                  allowPrivilegeEscalation: false,
                  readOnlyRootFilesystem: true,
                  capabilities: { drop: ["ALL"] },
                },
                volumeMounts: [{ mountPath: "/data" }, { mountPath: "/tmp" }],
              },
            ],
          },
        },
      },
    });
  });

  test("the role can neither read secrets nor grant rights nor reach into nodes", () => {
    const rules = JSON.stringify(ofKind("ClusterRole").rules);
    expect(rules).toContain('{"apiGroups":[""],"resources":["secrets"],"verbs":["create","patch","delete"]}');
    for (const never of [
      "*",
      "nodes/proxy",
      "rbac",
      "escalate",
      "bind",
      "impersonate",
      "serviceaccounts/token",
    ]) {
      expect(rules).not.toContain(never);
    }
  });
});
