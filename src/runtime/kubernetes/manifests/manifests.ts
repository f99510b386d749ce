import type { V1Container, V1PodSpec } from "@kubernetes/client-node";
import { formatBytes, formatCpuMillis } from "../../../lib/quantity.ts";
import type { EnvironmentSpec, ResourceLimits } from "../../runtime.ts";
import { DEFAULT_VARIABLES, EXTEND_PATH, STARTUP_FAILED_EXIT_CODE, startupScript } from "../../startup.ts";
import type { Manifest } from "../api/objects.ts";
import {
  CONTAINER,
  ENVIRONMENT_LABEL,
  environmentLabels,
  environmentName,
  GENERATION_ANNOTATION,
  namespaceName,
  SERVICE_ACCOUNT,
  startupNonce,
} from "../names.ts";
import HOLDER from "../terminals/holder.pl" with { type: "text" };

/* What an environment is in a cluster. API fields are those that both Kubernetes 1.20 and today's have. */

/** Of an environment whose template names none. */
export const DEFAULT_IMAGE = "debian:12";

export const WORKSPACE = "/workspace";
const SCRIPT_FOLDER = "/etc/devpocket";
const SCRIPT_FILE = "startup.sh";
const HOLDER_FILE = "holder.pl";
/** What holds terminals, see held.ts. */
export const HOLDER_SCRIPT = `${SCRIPT_FOLDER}/${HOLDER_FILE}`;
/** In the pod's own scratch volume: gone with the pod. */
const STATE_FOLDER = "/run/devpocket";
export const TERMINALS_FOLDER = `${STATE_FOLDER}/terminals`;
const READY_FILE = `${STATE_FOLDER}/ready`;
const TERMINATION_FILE = "/dev/termination-log";

/**
 * A container asks the scheduler for this part of its CPU limit. Environments idle most of the time and CPU
 * can be shared at any moment; memory can't, so that its request is its limit.
 */
const CPU_REQUEST_FRACTION = 1 / 10;
const CPU_REQUEST_LEAST_MILLIS = 10;

/** How long the startup script lets processes end before it kills them, and kubelet lets the script. */
const STOP_GRACE_SECONDS = 3;
export const TERMINATION_GRACE_SECONDS = 8;

/**
 * A container that has ended is started again by kubelet. One whose command has failed for good must not
 * run its commands again, and stays up so that kubelet keeps the log of the run that failed.
 *
 * Standard output and error are one, as on a terminal: as two streams their lines change places in the log.
 */
const PROLOGUE = `exec 2>&1
if [ -e ${STATE_FOLDER}/failed ]; then
  ${EXTEND_PATH}
  trap 'exit 0' TERM INT
  while :; do
    sleep 86400 &
    wait $!
  done
fi
trap '[ "$?" -ne ${STARTUP_FAILED_EXIT_CODE} ] || : >${STATE_FOLDER}/failed' EXIT
`;

/** While the startup commands run, how often kubelet looks whether they are done. */
const READY_CHECK_SECONDS = 2;
/** The deadline of an installation is the reconciler's; kubelet is never to kill the container for it. */
const READY_CHECKS = 2_000_000;

/** Container runtimes set TERM anew for every exec with a terminal: the shell takes it back from here. */
export const TERM_VARIABLE = "DEVPOCKET_TERM";

const FIRST_UNPRIVILEGED_PORT = 1024;

/** Any group: a volume's files are made its, so that an image with a user of its own can write. */
const WORKSPACE_GROUP = 1000;

export interface EnvironmentManifests {
  claim: Manifest;
  configMap: Manifest;
  secret: Manifest;
  service: Manifest;
  deployment: Manifest;
}

/** @param storageBytes what the claim asks for, where that is not what the specification does */
export function environmentManifests(
  spec: EnvironmentSpec,
  serverId: string,
  storageBytes = spec.resources.storageBytes,
): EnvironmentManifests {
  const labels = environmentLabels(spec, serverId);
  const metadata = {
    name: environmentName(spec.environmentId),
    namespace: namespaceName(spec.userId),
    labels,
  };
  const pods = { [ENVIRONMENT_LABEL]: spec.environmentId };
  return {
    claim: {
      apiVersion: "v1",
      kind: "PersistentVolumeClaim",
      metadata,
      spec: {
        accessModes: ["ReadWriteOnce"],
        resources: { requests: { storage: formatBytes(storageBytes) } },
      },
    },
    configMap: {
      apiVersion: "v1",
      kind: "ConfigMap",
      metadata,
      data: {
        [SCRIPT_FILE]:
          PROLOGUE +
          startupScript({
            commands: spec.startupCommands,
            nonce: startupNonce(spec.environmentId, spec.generation),
            workspace: WORKSPACE,
            readyFile: READY_FILE,
            failureFile: TERMINATION_FILE,
            stopGraceSeconds: STOP_GRACE_SECONDS,
          }),
        [HOLDER_FILE]: HOLDER,
      },
    },
    secret: {
      apiVersion: "v1",
      kind: "Secret",
      metadata,
      type: "Opaque",
      data: secretData(spec.variables),
    },
    service: {
      apiVersion: "v1",
      kind: "Service",
      metadata,
      spec: {
        type: "ClusterIP",
        selector: pods,
        ports: [{ name: "http", protocol: "TCP", port: spec.port, targetPort: spec.port }],
      },
    },
    deployment: {
      apiVersion: "apps/v1",
      kind: "Deployment",
      metadata,
      spec: {
        replicas: 1,
        revisionHistoryLimit: 0,
        // Where somebody has paused it, new containers would never be made.
        paused: false,
        strategy: { type: "Recreate" },
        selector: { matchLabels: pods },
        template: {
          metadata: { labels, annotations: { [GENERATION_ANNOTATION]: String(spec.generation) } },
          spec: podSpec(spec),
        },
      },
    },
  };
}

function secretData(owners: Record<string, string>): Record<string, string> {
  const variables: Record<string, string> = { ...DEFAULT_VARIABLES, ...owners };
  if (variables.TERM !== undefined) variables[TERM_VARIABLE] = variables.TERM;
  return Object.fromEntries(
    Object.entries(variables).map(([name, value]) => [name, Buffer.from(value).toString("base64")]),
  );
}

function podSpec(spec: EnvironmentSpec): V1PodSpec {
  const name = environmentName(spec.environmentId);
  return {
    hostname: spec.name,
    serviceAccountName: SERVICE_ACCOUNT,
    automountServiceAccountToken: false,
    enableServiceLinks: false,
    terminationGracePeriodSeconds: TERMINATION_GRACE_SECONDS,
    securityContext: {
      fsGroup: WORKSPACE_GROUP,
      fsGroupChangePolicy: "OnRootMismatch",
      seccompProfile: { type: "RuntimeDefault" },
    },
    containers: [container(spec)],
    volumes: [
      { name: "workspace", persistentVolumeClaim: { claimName: name } },
      { name: "startup", configMap: { name, defaultMode: 0o555 } },
      { name: "state", emptyDir: {} },
    ],
  };
}

function container(spec: EnvironmentSpec): V1Container {
  const { cpuMillis, memoryBytes } = spec.resources;
  const memory = formatBytes(memoryBytes);
  return {
    name: CONTAINER,
    image: spec.image ?? DEFAULT_IMAGE,
    imagePullPolicy: "IfNotPresent",
    command: ["/bin/sh", `${SCRIPT_FOLDER}/${SCRIPT_FILE}`],
    workingDir: WORKSPACE,
    envFrom: [{ secretRef: { name: environmentName(spec.environmentId) } }],
    ports: [{ name: "http", containerPort: spec.port, protocol: "TCP" }],
    resources: {
      requests: { cpu: formatCpuMillis(cpuRequestMillis(cpuMillis)), memory },
      limits: { cpu: formatCpuMillis(cpuMillis), memory },
    },
    securityContext: {
      allowPrivilegeEscalation: false,
      privileged: false,
      capabilities: { drop: ["ALL"], ...capabilitiesOf(spec) },
    },
    // A startup probe and none of readiness: kubelet starts a process in the container for every check,
    // and stops checking once it has succeeded.
    startupProbe: {
      exec: { command: ["/bin/sh", "-c", `test -e ${READY_FILE}`] },
      periodSeconds: READY_CHECK_SECONDS,
      timeoutSeconds: 10,
      failureThreshold: READY_CHECKS,
    },
    terminationMessagePath: TERMINATION_FILE,
    terminationMessagePolicy: "File",
    volumeMounts: [
      { name: "workspace", mountPath: WORKSPACE },
      { name: "startup", mountPath: SCRIPT_FOLDER, readOnly: true },
      { name: "state", mountPath: STATE_FOLDER },
    ],
  };
}

function capabilitiesOf({ capabilities, port }: EnvironmentSpec): { add?: string[] } {
  const add = new Set(capabilities);
  if (port < FIRST_UNPRIVILEGED_PORT) add.add("NET_BIND_SERVICE");
  return add.size > 0 ? { add: [...add] } : {};
}

/** What the pod of an environment with these limits asks the scheduler for. */
export function podRequests({ cpuMillis, memoryBytes }: ResourceLimits): {
  cpuMillis: number;
  memoryBytes: number;
} {
  return { cpuMillis: cpuRequestMillis(cpuMillis), memoryBytes };
}

export function cpuRequestMillis(limitMillis: number): number {
  const part = Math.ceil(limitMillis * CPU_REQUEST_FRACTION);
  return Math.min(limitMillis, Math.max(CPU_REQUEST_LEAST_MILLIS, part));
}
