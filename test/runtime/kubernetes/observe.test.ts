import { describe, expect, test } from "bun:test";
import type {
  ContainerStatus,
  FieldSet,
  KubeEvent,
  ManagedFields,
  Pod,
} from "../../../src/runtime/kubernetes/api/objects.ts";
import {
  inExcess,
  longestRunning,
  observe,
  type Progress,
  type Sight,
} from "../../../src/runtime/kubernetes/observe.ts";
import type { Observed } from "../../../src/runtime/runtime.ts";

const AT = "2026-01-01T00:00:00Z";
const AT_MS = Date.parse(AT);
const LATER = "2026-01-01T00:00:30Z";
const NOW_MS = AT_MS + 60_000;

const DEPLOYMENT = {
  metadata: { name: "env-1" },
  spec: {
    replicas: 1,
    template: { metadata: { annotations: { "devpocket.dev/generation": "2" } }, spec: { containers: [] } },
  },
};
const STOPPED = { ...DEPLOYMENT, spec: { ...DEPLOYMENT.spec, replicas: 0 } };
const CLAIM = { metadata: { name: "env-1" }, spec: {}, status: { phase: "Bound" } };
const DELETED = { deletionTimestamp: AT };

interface PodChange {
  container?: Partial<ContainerStatus>;
  scheduled?: { status: string; reason?: string; message?: string };
  metadata?: Pod["metadata"];
  status?: Pod["status"];
  generation?: number;
}

function pod({
  container,
  scheduled = { status: "True" },
  metadata,
  status,
  generation = 2,
}: PodChange = {}): Pod {
  return {
    metadata: {
      uid: "p1",
      creationTimestamp: AT,
      annotations: { "devpocket.dev/generation": String(generation) },
      ...metadata,
    },
    spec: {
      containers: [
        { name: "environment", image: "python:3.11-slim", resources: { limits: { memory: "64Mi" } } },
      ],
    },
    status: {
      phase: "Pending",
      conditions: [{ type: "PodScheduled", lastTransitionTime: AT, ...scheduled }],
      ...(container
        ? { containerStatuses: [{ name: "environment", ready: false, restartCount: 0, ...container }] }
        : {}),
      ...status,
    },
  };
}

function event(reason: string, message: string, more: Partial<KubeEvent> = {}): KubeEvent {
  return {
    metadata: { resourceVersion: "1" },
    reason,
    message,
    firstTimestamp: AT,
    lastTimestamp: LATER,
    involvedObject: { kind: "Pod", name: "env-1-a-b", uid: "p1" },
    ...more,
  };
}

function seen(sight: Partial<Sight>, progress?: Progress): Observed {
  return observe(
    { deployment: DEPLOYMENT, claim: CLAIM, pods: [], events: [], namespace: "unknown", ...sight },
    { now: NOW_MS, progress: () => progress },
  );
}

const refused = (message: string) => ({
  deployment: {
    ...DEPLOYMENT,
    status: {
      conditions: [{ type: "ReplicaFailure", status: "True", lastTransitionTime: AT, message }],
    },
  },
});

const RUNNING = { state: { running: { startedAt: AT } } };
const terminated = (exitCode: number, more: object = {}) => ({ exitCode, finishedAt: LATER, ...more });
const waiting = (reason: string, message: string) =>
  pod({ container: { state: { waiting: { reason, message } } } });
const provisioning = (message: string) => ({ phase: "provisioning" as const, generation: 2, message });

describe("an environment is", () => {
  const cases: [string, Partial<Sight>, Observed][] = [
    ["absent where nothing is", { deployment: null, claim: null }, { phase: "absent" }],
    ["stopped where only its workspace is", { deployment: null }, { phase: "stopped" }],
    [
      "stopping while the namespace goes",
      { deployment: null, claim: null, namespace: "ending" },
      { phase: "stopping" },
    ],
    [
      "not absent while its empty namespace stands",
      { deployment: null, claim: null, namespace: "empty" },
      { phase: "stopped" },
    ],
    [
      "stopping while its claim goes",
      { deployment: null, claim: { ...CLAIM, metadata: DELETED } },
      { phase: "stopping" },
    ],
    ["stopping while a pod is left", { deployment: null, claim: null, pods: [pod()] }, { phase: "stopping" }],
    ["stopped when scaled to zero", { deployment: STOPPED }, { phase: "stopped", lastGeneration: 2 }],
    [
      "stopping while its container ends",
      { deployment: STOPPED, pods: [pod({ container: RUNNING, metadata: { uid: "p1", ...DELETED } })] },
      { phase: "stopping", lastGeneration: 2 },
    ],
    [
      "stopped when its container has ended, though the record stays",
      {
        deployment: STOPPED,
        pods: [
          pod({ container: { state: { terminated: terminated(0) } }, metadata: { uid: "p1", ...DELETED } }),
        ],
      },
      { phase: "stopped", lastGeneration: 2 },
    ],
    [
      "stopped with the record of an evicted pod",
      { deployment: STOPPED, pods: [pod({ status: { phase: "Failed", reason: "Evicted" } })] },
      { phase: "stopped", lastGeneration: 2 },
    ],
    ["provisioning before there is a pod", {}, provisioning("Preparing the workspace")],
    [
      "provisioning while the previous generation ends",
      { pods: [pod({ generation: 1, container: RUNNING })] },
      provisioning("Waiting for the previous containers to end"),
    ],
    [
      "provisioning while its volume is made",
      { pods: [pod({ scheduled: { status: "False" } })], claim: { ...CLAIM, status: { phase: "Pending" } } },
      provisioning("Waiting for the volume"),
    ],
    [
      "provisioning while its image is pulled",
      { pods: [pod()], events: [event("Pulling", "Pulling image")] },
      provisioning("Pulling image python:3.11-slim"),
    ],
    [
      "provisioning when its image is there",
      { pods: [pod()], events: [event("Pulling", "Pulling image"), event("Pulled", "Pulled")] },
      provisioning("Starting the container"),
    ],
    [
      "provisioning while its volume can't be mounted",
      { pods: [pod()], events: [event("FailedMount", "timeout expired waiting for volumes")] },
      provisioning("Waiting for the volume: timeout expired waiting for volumes"),
    ],
    [
      "provisioning while its container can't be started for a reason that may pass",
      { pods: [waiting("RunContainerError", "runc create failed: context canceled: unknown")] },
      provisioning("The container can't be started yet: context canceled"),
    ],
    [
      "provisioning again after its container ended once",
      {
        pods: [
          pod({
            container: {
              restartCount: 1,
              state: { waiting: {} },
              lastState: { terminated: terminated(137) },
            },
          }),
        ],
      },
      provisioning("Starting the container again"),
    ],
    [
      "running when the startup probe has succeeded",
      { pods: [pod({ container: { ...RUNNING, started: true } })] },
      { phase: "running", generation: 2, startedAtMs: AT_MS },
    ],
    [
      "running on though its node is silent",
      {
        pods: [
          pod({
            container: { ...RUNNING, started: true },
            status: { conditions: [{ type: "Ready", status: "False" }] },
          }),
        ],
      },
      { phase: "running", generation: 2, startedAtMs: AT_MS },
    ],
  ];
  test.each(cases)("%s", (_, sight, observed) => {
    expect(seen(sight)).toEqual(observed);
  });

  test("installing by the steps that its log tells", () => {
    const pods = [pod({ container: { ...RUNNING, started: false } })];
    expect(seen({ pods }, { step: 2, steps: 3, command: "make  all\n", done: false })).toEqual({
      phase: "installing",
      generation: 2,
      step: 2,
      steps: 3,
      message: "Step 2 of 3: make all",
      startedAtMs: AT_MS,
    });
    expect(seen({ pods }, { step: 3, steps: 3, command: "", done: true }).phase).toBe("configuring");
    expect(seen({ pods }).phase).toBe("installing");
  });
});

describe("an environment can't get on, for now:", () => {
  const failure = event("Failed", 'Failed to pull image "python:3.11-slim": a: not found');
  const cases: [string, Partial<Sight>, object][] = [
    [
      "its image is not there, since the first failure",
      {
        pods: [pod({ container: { state: { waiting: { reason: "ImagePullBackOff" } } } })],
        events: [failure],
      },
      { kind: "image_pull", message: "image python:3.11-slim cannot be pulled: not found", sinceMs: AT_MS },
    ],
    [
      "its image is not there, and the events are gone",
      {
        pods: [
          pod({ container: { state: { waiting: { reason: "ErrImagePull", message: "b: not found" } } } }),
        ],
      },
      { kind: "image_pull", message: "image python:3.11-slim cannot be pulled: not found", sinceMs: AT_MS },
    ],
    [
      "no node has room",
      {
        pods: [
          pod({
            scheduled: {
              status: "False",
              reason: "Unschedulable",
              message: "0/1 nodes are available: 1 Insufficient memory.",
            },
          }),
        ],
      },
      {
        kind: "unschedulable",
        message: "No node has room: 0/1 nodes are available: 1 Insufficient memory.",
        sinceMs: AT_MS,
      },
    ],
    [
      "its volume can't be made",
      {
        claim: { ...CLAIM, status: { phase: "Pending" } },
        pods: [
          pod({
            scheduled: {
              status: "False",
              reason: "Unschedulable",
              message: "pod has unbound immediate PersistentVolumeClaims",
            },
          }),
        ],
        events: [
          event("ProvisioningFailed", "storageclass not found", {
            involvedObject: { kind: "PersistentVolumeClaim" },
          }),
        ],
      },
      { kind: "unschedulable", message: "The volume can't be made: storageclass not found", sinceMs: AT_MS },
    ],
    [
      "the quota is used up",
      refused(
        "exceeded quota: devpocket, requested: limits.cpu=1, used: limits.cpu=1, limited: limits.cpu=1",
      ),
      { kind: "quota", message: "Quota exceeded (CPU: 1 asked for, 1 of 1 in use)", sinceMs: AT_MS },
    ],
    [
      "the cluster's policy forbids it",
      refused('pods "env-1" is forbidden: violates PodSecurity "restricted"'),
      {
        kind: "rejected",
        message:
          'The cluster refuses the container: pods "env-1" is forbidden: violates PodSecurity "restricted"',
        sinceMs: AT_MS,
      },
    ],
  ];
  test.each(cases)("%s", (_, sight, problem) => {
    expect(seen(sight)).toMatchObject({ phase: "provisioning", generation: 2, problem });
  });

  test("a refusal of an earlier attempt is no problem of this one", () => {
    const { deployment } = refused("exceeded quota: devpocket");
    const metadata = { ...deployment.metadata, generation: 5 };
    const at = (observedGeneration: number) =>
      seen({
        deployment: { metadata, spec: deployment.spec, status: { ...deployment.status, observedGeneration } },
      });
    expect(at(4)).toEqual(provisioning("Preparing the workspace"));
    expect(at(5)).toMatchObject({ problem: { kind: "quota" } });
  });
});

describe("what somebody has changed by hand is altered:", () => {
  const started = (uid: string, creationTimestamp: string) =>
    pod({
      container: { ...RUNNING, started: true },
      metadata: { uid, creationTimestamp, annotations: { "devpocket.dev/generation": "2" } },
    });
  const running = { phase: "running" as const, generation: 2, startedAtMs: AT_MS };

  test("scaled up, it runs on in the pod that stays", () => {
    const deployment = { ...DEPLOYMENT, spec: { ...DEPLOYMENT.spec, replicas: 3 } };
    const later = pod({ metadata: { uid: "p2", creationTimestamp: LATER } });
    const pods = [later, started("p3", LATER), started("p1", AT)];
    const message = "Somebody has scaled it to 3 in the cluster; it is changed back";
    const problem = { kind: "altered" as const, message, sinceMs: NOW_MS };
    expect(seen({ deployment, pods })).toEqual({ ...running, problem });
    expect(longestRunning(pods)?.metadata.uid).toBe("p1");
    const uids = (found: Pod[]) => found.map(({ metadata }) => metadata.uid);
    expect(uids(inExcess({ deployment, pods }))).toEqual(["p2", "p3"]);
    expect(uids(inExcess({ deployment, pods: [later, pod({ metadata: { uid: "p4" } })] }))).toEqual([]);
    expect(uids(inExcess({ deployment: DEPLOYMENT, pods }))).toEqual([]);
  });

  test("what restricts its user is told of where containers have begun to run, and nowhere else", () => {
    const isolation = { kind: "missing", message: "it is missing" } as const;
    const problem = { ...isolation, sinceMs: NOW_MS };
    expect(seen({ isolation, pods: [started("p1", AT)] })).toEqual({ ...running, problem });
    const installing = pod({ container: { ...RUNNING, started: false } });
    expect(seen({ isolation, pods: [installing] })).toMatchObject({ phase: "installing", problem });
    for (const sight of [{}, { pods: [pod()] }, { deployment: STOPPED }, { deployment: null }]) {
      expect(seen({ isolation, ...sight })).not.toHaveProperty("problem");
    }
  });

  /** As an API server notes it: the fields of a manifest, but for one. */
  function managed(lost: string, applied = true) {
    const container = {
      "f:image": {},
      "f:command": {},
      "f:resources": {
        "f:limits": { "f:cpu": {}, "f:memory": {} },
        "f:requests": { "f:cpu": {}, "f:memory": {} },
      },
      "f:securityContext": {
        "f:allowPrivilegeEscalation": {},
        "f:capabilities": { "f:drop": {} },
        "f:privileged": {},
      },
    };
    const spec = {
      "f:automountServiceAccountToken": {},
      "f:serviceAccountName": {},
      "f:containers": { 'k:{"name":"environment"}': container },
    };
    const fieldsV1: FieldSet = JSON.parse(
      JSON.stringify({ "f:spec": { "f:template": { "f:spec": spec } } }).replace(`"${lost}":{}`, '"f:x":{}'),
    );
    const managedFields: ManagedFields[] = [
      { manager: "kubectl-edit", operation: "Update", time: LATER, fieldsV1: {} },
      { manager: "devpocket", operation: applied ? "Apply" : "Update", time: AT, fieldsV1 },
    ];
    return { ...DEPLOYMENT, metadata: { ...DEPLOYMENT.metadata, managedFields } };
  }

  test.each([
    ["f:image", "image"],
    ["f:command", "command"],
    ["f:cpu", "resources"],
    ["f:memory", "resources"],
    ["f:drop", "privileges"],
    ["f:privileged", "privileges"],
    ["f:serviceAccountName", "service account"],
  ])("without %s of ours, its %s, though it runs", (lost, what) => {
    const message = `Somebody has changed its ${what} in the cluster; it is changed back`;
    const problem = { kind: "altered" as const, message, sinceMs: Date.parse(LATER) };
    const sight = { deployment: managed(lost), pods: [started("p1", AT)] };
    expect(seen(sight)).toEqual({ ...provisioning(message), problem });
  });

  test("nothing that the cluster's admission has made of our own request", () => {
    const deployment = managed("f:image");
    const container = 'k:{"name":"environment"}';
    deployment.metadata.managedFields.push({
      manager: "devpocket",
      operation: "Update",
      time: LATER,
      fieldsV1: {
        "f:spec": { "f:template": { "f:spec": { "f:containers": { [container]: { "f:image": {} } } } } },
      },
    });
    expect(seen({ deployment, pods: [started("p1", AT)] })).toEqual(running);
  });

  test("nothing where the fields are ours, or nobody has noted whose they are", () => {
    for (const deployment of [managed("nothing"), managed("f:image", false), DEPLOYMENT]) {
      expect(seen({ deployment, pods: [started("p1", AT)] })).toEqual(running);
    }
  });
});

describe("what somebody has deleted is missing", () => {
  const NO_SCRIPT = 'MountVolume.SetUp failed for volume "startup" : configmap "env-1" not found';
  const unmounted = event("FailedMount", NO_SCRIPT);
  const before = ["Scheduled", "Pulling", "Pulled", "Created", "Started"].map((reason) => event(reason, "…"));
  const account = 'pods "env-1" is forbidden: error looking up service account: serviceaccount "x" not found';
  test.each<[string, string, Partial<Sight>]>([
    ["when its volume is mounted", 'configmap "env-1"', { pods: [pod()], events: [unmounted] }],
    [
      "when other words follow",
      'configmap "env-1"',
      { pods: [pod()], events: [unmounted, event("FailedMount", "timed out waiting for the condition")] },
    ],
    [
      "when its node has started anew",
      'configmap "env-1"',
      { pods: [pod({ container: { restartCount: 1 } })], events: [...before, unmounted] },
    ],
    [
      "when the container is made",
      'secret "env-1"',
      { pods: [waiting("CreateContainerConfigError", 'secret "env-1" not found')], events: before },
    ],
    ["when its pod is made", 'serviceaccount "x"', refused(account)],
    [
      "when a node is looked for",
      'persistentvolumeclaim "env-1"',
      {
        claim: null,
        pods: [
          pod({
            scheduled: {
              status: "False",
              reason: "Unschedulable",
              message: '0/1 nodes are available: persistentvolumeclaim "env-1" not found.',
            },
          }),
        ],
      },
    ],
  ])("%s", (_, object, sight) => {
    const message = `${object} is missing in the cluster`;
    expect(seen(sight)).toMatchObject({ ...provisioning(message), problem: { kind: "missing", message } });
  });

  test.each<[string, Partial<Sight>]>([
    [
      "once it is there and the image is pulled",
      { pods: [pod()], events: [unmounted, event("Pulling", "…")] },
    ],
    [
      "where another pod lacked it",
      { pods: [pod()], events: [{ ...unmounted, involvedObject: { kind: "Pod", uid: "p0" } }] },
    ],
    ["where something else can't be mounted", { pods: [pod()], events: [event("FailedMount", "timed out")] }],
    ["where a name is wrong", { pods: [waiting("CreateContainerConfigError", "no such user")] }],
  ])("but not %s", (_, sight) => {
    expect(seen(sight)).not.toHaveProperty("problem");
  });
});

describe("an environment has failed for good:", () => {
  const FAILED = "Startup command 1 of 1 failed with exit code 7: make";
  const ended = (termination: object, more: Partial<ContainerStatus> = {}) => ({
    state: { waiting: { reason: "CrashLoopBackOff" } },
    lastState: { terminated: terminated(1, termination) },
    ...more,
  });
  const cases: [string, Partial<ContainerStatus>, string, string][] = [
    ["a command failed", ended({ exitCode: 93, message: FAILED }), "command_failed", FAILED],
    [
      "a command failed, and the container began again",
      { ...ended({ exitCode: 93, message: FAILED }), ...RUNNING, restartCount: 1 },
      "command_failed",
      FAILED,
    ],
    [
      "no memory",
      ended({ exitCode: 137, reason: "OOMKilled" }),
      "out_of_memory",
      "ran out of memory (limit 64Mi)",
    ],
    [
      "no memory during a command",
      { state: { terminated: terminated(93, { reason: "OOMKilled", message: FAILED }) } },
      "out_of_memory",
      `ran out of memory (limit 64Mi). ${FAILED}`,
    ],
    [
      "no shell",
      {
        state: {
          waiting: { reason: "RunContainerError", message: "exec: /bin/sh: no such file or directory" },
        },
      },
      "crashed",
      "image python:3.11-slim has no /bin/sh",
    ],
    [
      "no shell, and it is tried again",
      ended({ exitCode: 128, reason: "StartError", message: "exec: /bin/sh: no such file or directory" }),
      "crashed",
      "image python:3.11-slim has no /bin/sh",
    ],
    [
      "not started again and again",
      ended({ exitCode: 128, reason: "StartError", message: "runc: mount refused" }, { restartCount: 3 }),
      "crashed",
      "the container can't be started: mount refused",
    ],
    [
      "again and again",
      ended({ exitCode: 2 }, { restartCount: 3 }),
      "crashed",
      "The container has ended 3 times, last with exit code 2",
    ],
  ];
  test.each(cases)("%s", (_, container, kind, message) => {
    expect(seen({ pods: [pod({ container })] })).toMatchObject({
      phase: "failed",
      generation: 2,
      problem: { kind, message },
    });
  });

  const STARTED = "2026-01-01T00:00:10Z";
  const run = terminated(255, { startedAt: STARTED });
  const ready = (since: string) => ({
    conditions: [
      { type: "PodScheduled", status: "True" },
      { type: "Ready", status: "False", lastTransitionTime: since },
    ],
  });
  test.each<[string, PodChange, Observed["phase"]]>([
    [
      "that it has outlived",
      { container: { ...RUNNING, started: true, lastState: { terminated: run } } },
      "running",
    ],
    [
      "before it was started at last",
      {
        container: {
          ...RUNNING,
          started: true,
          restartCount: 1,
          lastState: { terminated: terminated(128, { reason: "StartError", message: "context canceled" }) },
        },
      },
      "running",
    ],
    [
      "that are far apart, as by restarts of its node",
      { container: { state: { terminated: run } }, status: ready(LATER) },
      "provisioning",
    ],
    [
      "that are far apart, while it begins again",
      { container: { ...RUNNING, started: false, lastState: { terminated: run } }, status: ready(LATER) },
      "installing",
    ],
    [
      "of which it is not known when it was ready",
      { container: { state: { terminated: run } }, status: {} },
      "provisioning",
    ],
  ])("but not for ends %s", (_, { container, ...change }, phase) => {
    expect(seen({ pods: [pod({ container: { restartCount: 9, ...container }, ...change })] }).phase).toBe(
      phase,
    );
  });

  test("as soon as it has ended so often without having been ready, however long it took", () => {
    const container = { ...RUNNING, started: false, restartCount: 3, lastState: { terminated: run } };
    expect(seen({ pods: [pod({ container, status: ready(AT) })] })).toMatchObject({
      phase: "failed",
      problem: { kind: "crashed" },
    });
  });
});
