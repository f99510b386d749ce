import { describe, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  cpuRequestMillis,
  environmentManifests,
} from "../../../src/runtime/kubernetes/manifests/manifests.ts";
import { userManifests } from "../../../src/runtime/kubernetes/manifests/usermanifests.ts";
import type { EnvironmentSpec } from "../../../src/runtime/runtime.ts";
import { until } from "../../until.ts";

const GIB = 2 ** 30;

function spec(change: Partial<EnvironmentSpec> = {}): EnvironmentSpec {
  return {
    environmentId: "e1",
    userId: "u1",
    name: "work",
    generation: 3,
    image: "python:3.11-slim",
    startupCommands: ["pip install -r requirements.txt"],
    variables: { GREETING: "it's ü $(HOME)" },
    resources: { cpuMillis: 1500, memoryBytes: 2 * GIB, storageBytes: 10 * GIB },
    port: 8080,
    capabilities: [],
    userQuota: null,
    ...change,
  };
}

/** What stands at a path of keys and indexes in an object. */
function at(object: unknown, path: string): unknown {
  return path.split(".").reduce<unknown>((value, key) => Reflect.get(Object(value), key), object);
}

const POD = "deployment.spec.template.spec";
const CONTAINER = `${POD}.containers.0`;

describe("an environment's manifests", () => {
  test.each([
    ["deployment.metadata.name", "env-e1"],
    ["deployment.metadata.namespace", "devpocket-u1"],
    ["deployment.spec.replicas", 1],
    ["deployment.spec.paused", false],
    ["deployment.spec.strategy", { type: "Recreate" }],
    ["deployment.spec.selector.matchLabels", { "devpocket.dev/environment-id": "e1" }],
    ["deployment.spec.template.metadata.annotations", { "devpocket.dev/generation": "3" }],
    [`${POD}.hostname`, "work"],
    [`${POD}.automountServiceAccountToken`, false],
    [`${POD}.enableServiceLinks`, false],
    [`${POD}.securityContext.seccompProfile`, { type: "RuntimeDefault" }],
    [`${CONTAINER}.image`, "python:3.11-slim"],
    [`${CONTAINER}.imagePullPolicy`, "IfNotPresent"],
    [
      `${CONTAINER}.resources`,
      { requests: { cpu: "150m", memory: "2Gi" }, limits: { cpu: "1500m", memory: "2Gi" } },
    ],
    [`${CONTAINER}.securityContext.allowPrivilegeEscalation`, false],
    [`${CONTAINER}.securityContext.privileged`, false],
    [`${CONTAINER}.securityContext.capabilities`, { drop: ["ALL"] }],
    [`${CONTAINER}.workingDir`, "/workspace"],
    [`${POD}.volumes.0`, { name: "workspace", persistentVolumeClaim: { claimName: "env-e1" } }],
    ["claim.spec", { accessModes: ["ReadWriteOnce"], resources: { requests: { storage: "10Gi" } } }],
    ["service.spec.ports.0.port", 8080],
    ["service.spec.selector", { "devpocket.dev/environment-id": "e1" }],
  ])("have at %s what is meant", (path, value) => {
    expect(at(environmentManifests(spec(), "s1"), path)).toEqual(value);
  });

  test.each(["claim", "configMap", "secret", "service", "deployment", "deployment.spec.template"])(
    "label the %s with whose it is",
    (path) => {
      expect(at(environmentManifests(spec(), "s1"), `${path}.metadata.labels`)).toEqual({
        "app.kubernetes.io/name": "devpocket-environment",
        "app.kubernetes.io/instance": "env-e1",
        "app.kubernetes.io/component": "environment",
        "app.kubernetes.io/managed-by": "devpocket",
        "devpocket.dev/server": "s1",
        "devpocket.dev/user-id": "u1",
        "devpocket.dev/environment-id": "e1",
      });
    },
  );

  test("keep variables byte for byte, the owner's over the defaults", () => {
    const { secret } = environmentManifests(
      spec({ variables: { GREETING: "it's ü $(HOME)", TERM: "dumb" } }),
      "s1",
    );
    const text = (name: string) => Buffer.from(String(at(secret, `data.${name}`)), "base64").toString();
    expect(text("GREETING")).toBe("it's ü $(HOME)");
    expect(text("TERM")).toBe("dumb");
    expect(text("LANG")).toBe("C.UTF-8");
  });

  test("let a container whose command has failed wait, whatever the owner's PATH is", async () => {
    const folder = mkdtempSync(join(tmpdir(), "devpocket-failed-"));
    const script = String(
      Reflect.get(Object(environmentManifests(spec(), "s1").configMap.data), "startup.sh"),
    );
    writeFileSync(join(folder, "failed"), "");
    const command = ["/bin/sh", "-c", script.replaceAll("/run/devpocket", folder)];
    const child = Bun.spawn(command, { env: { PATH: "$PATH:/workspace/bin" }, stdout: "pipe" });
    const sleeper = await until(() => {
      const [first] = readFileSync(`/proc/${child.pid}/task/${child.pid}/children`, "utf8").split(" ");
      return first && readFileSync(`/proc/${first}/comm`, "utf8") === "sleep\n" ? Number(first) : null;
    }).finally(() => child.kill("SIGTERM"));
    expect(await child.exited).toBe(0);
    // Killed before, it could be waited for and told of.
    process.kill(sleeper);
    expect(await child.stdout.text()).toBe("");
    rmSync(folder, { recursive: true });
  });

  test("have a plain image where the template names none", () => {
    expect(at(environmentManifests(spec({ image: null }), "s1"), `${CONTAINER}.image`)).toBe("debian:12");
  });

  test.each([
    [["CHOWN", "SETUID"], 8080, ["CHOWN", "SETUID"]],
    [["CHOWN"], 80, ["CHOWN", "NET_BIND_SERVICE"]],
    [["NET_BIND_SERVICE"], 80, ["NET_BIND_SERVICE"]],
    [[], 1024, undefined],
  ])("keep of capabilities %p on port %d just %p", (capabilities, port, kept) => {
    const manifests = environmentManifests(spec({ capabilities, port }), "s1");
    expect(at(manifests, `${CONTAINER}.securityContext.capabilities.add`)).toEqual(kept);
  });

  test.each([
    [4000, 400],
    [501, 51],
    [50, 10],
    [5, 5],
  ])("ask for a tenth of the CPU limit %d: %d", (limit, request) => {
    expect(cpuRequestMillis(limit)).toBe(request);
  });
});

describe("a user's manifests", () => {
  test("have a quota of all that their environments may take together", () => {
    const quota = { cpuMillis: 3000, memoryBytes: 12 * GIB, storageBytes: 150 * GIB, environments: 3 };
    expect(userManifests("u1", quota, "s1").quota?.spec).toEqual({
      hard: {
        "limits.cpu": "3000m",
        "limits.memory": "12Gi",
        "requests.storage": "150Gi",
        persistentvolumeclaims: "3",
      },
    });
  });

  test("have none for who has no quota", () => {
    expect(userManifests("u1", null, "s1").quota).toBeNull();
  });

  test("let nothing in, and out only name lookups and what is not private", () => {
    expect(userManifests("u1", null, "s1").networkPolicy.spec).toEqual({
      podSelector: {},
      policyTypes: ["Ingress", "Egress"],
      ingress: [],
      egress: [
        {
          to: [{ namespaceSelector: {} }, { ipBlock: { cidr: "169.254.20.10/32" } }],
          ports: [
            { protocol: "UDP", port: 53 },
            { protocol: "TCP", port: 53 },
          ],
        },
        {
          to: [
            {
              ipBlock: {
                cidr: "0.0.0.0/0",
                except: [
                  "10.0.0.0/8",
                  "100.64.0.0/10",
                  "127.0.0.0/8",
                  "169.254.0.0/16",
                  "172.16.0.0/12",
                  "192.168.0.0/16",
                ],
              },
            },
          ],
        },
      ],
    });
  });

  test("give pods a service account without a token", () => {
    expect(userManifests("u1", null, "s1").serviceAccount.automountServiceAccountToken).toBe(false);
  });
});
