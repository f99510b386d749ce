import type { Observed, Problem } from "../runtime.ts";
import { commandSummary, STARTUP_FAILED_EXIT_CODE } from "../startup.ts";
import { isQuotaExceeded, quotaWords } from "./api/errors.ts";
import {
  type Claim,
  type ContainerStatus,
  type Deployment,
  type KubeEvent,
  type Pod,
  type Termination,
  timeMs,
} from "./api/objects.ts";
import { editOf } from "./edits.ts";
import { eventTimeMs, pullFailure } from "./events.ts";
import { CONTAINER, GENERATION_ANNOTATION } from "./names.ts";
import {
  imagePullWords,
  missingWords,
  neverStartsWords,
  shorten,
  startCause,
  startErrorWords,
  unschedulableWords,
} from "./words.ts";

/* From an environment's objects to what it is. Nothing here asks the cluster or a clock. */

/** An environment's objects as they were seen at one time. */
export interface Sight {
  deployment: Deployment | null;
  claim: Claim | null;
  pods: Pod[];
  /** Of these objects, oldest first; may lag behind. */
  events: KubeEvent[];
  /**
   * Looked at only where there is none of the objects above: is it being deleted, or does it stand without
   * any environment, left from a creation or removal that was cut short?
   */
  namespace: "ending" | "empty" | "unknown";
  /** What is wrong with what restricts its user. */
  isolation?: Omit<Problem, "sinceMs"> | undefined;
}

/** How far the startup script of a container is, as its log has it. */
export interface Progress {
  step: number;
  steps: number;
  command: string;
  done: boolean;
}

export interface ObserveContext {
  now: number;
  progress(pod: Pod, restartCount: number): Progress | undefined;
}

/** So often may a container end, for no reason that is known, before ends in succession count as crashing. */
const CRASHES = 3;

const PULL_FAILED = new Set([
  "ErrImagePull",
  "ImagePullBackOff",
  "InvalidImageName",
  "ErrImageNeverPull",
  "ImageInspectError",
  "RegistryUnavailable",
]);
/** What kubelet does once all volumes are mounted. */
const MOUNTED = new Set(["Pulling", "Pulled", "Created", "Started"]);
/** Kubelet tries again: some of it, such as its own end in the middle, passes. */
const START_FAILED = new Set(["RunContainerError", "StartError", "ContainerCannotRun"]);

export function observe(sight: Sight, context: ObserveContext): Observed {
  const { deployment, claim } = sight;
  const pods = sight.pods.filter((pod) => !isOver(pod));
  if (!deployment) {
    if (pods.length > 0 || sight.namespace === "ending" || (claim && isEnding(claim))) {
      return { phase: "stopping" };
    }
    // An empty namespace is something to remove, and nothing that has to be ended before.
    return { phase: claim || sight.namespace === "empty" ? "stopped" : "absent" };
  }
  if (isEnding(deployment) || (claim && isEnding(claim))) return { phase: "stopping" };
  const generation = generationOf(deployment.spec.template.metadata?.annotations);
  if ((deployment.spec.replicas ?? 1) === 0) {
    return { phase: pods.every(hasEnded) ? "stopped" : "stopping", lastGeneration: generation };
  }

  const edit = editOf(deployment);
  // Whatever runs of it is about to be replaced.
  if (edit) return { phase: "provisioning", generation, message: edit.message, problem: edit };
  const own = ownPods(deployment, pods);
  const pod = longestRunning(own) ?? newest(own);
  if (!pod) return { phase: "provisioning", generation, ...withoutPod(sight, pods) };
  const observed = fromPod(pod, generation, sight, context);
  if (observed.phase !== "running" && observed.phase !== "installing" && observed.phase !== "configuring") {
    return observed;
  }
  const problem = scaleProblem(deployment) ?? sight.isolation;
  return problem ? { ...observed, problem: { ...problem, sinceMs: context.now } } : observed;
}

/** Of what the Deployment is now, and not about to go. */
function ownPods({ spec }: Deployment, pods: Pod[]): Pod[] {
  const generation = generationOf(spec.template.metadata?.annotations);
  return pods.filter((pod) => !isOver(pod) && !isEnding(pod) && generationOfPod(pod) === generation);
}

/** Where somebody has scaled an environment up, the pods besides the one that it runs in; none while none runs. */
export function inExcess({ deployment, pods }: Pick<Sight, "deployment" | "pods">): Pod[] {
  if (!deployment || (deployment.spec.replicas ?? 1) <= 1) return [];
  const own = ownPods(deployment, pods);
  const kept = longestRunning(own);
  return kept ? own.filter((pod) => pod !== kept) : [];
}

function scaleProblem({ spec: { replicas = 1 } }: Deployment): Omit<Problem, "sinceMs"> | undefined {
  if (replicas <= 1) return undefined;
  return {
    kind: "altered",
    message: `Somebody has scaled it to ${replicas} in the cluster; it is changed back`,
  };
}

function isEnding({ metadata }: { metadata: { deletionTimestamp?: string } }): boolean {
  return metadata.deletionTimestamp !== undefined;
}

/** Evicted or ended for good; kept by the cluster as a record only. */
export function isOver(pod: Pod): boolean {
  return pod.status?.phase === "Failed" || pod.status?.phase === "Succeeded";
}

/** Deleted, and nothing of it runs any more: the record stays for some seconds while kubelet tidies up. */
export function hasEnded(pod: Pod): boolean {
  const containers = pod.status?.containerStatuses ?? [];
  return isOver(pod) || (isEnding(pod) && containers.length > 0 && containers.every(isContainerOver));
}

/**
 * Where the container of a deleted pod is removed before kubelet has read how it ended, older ones (1.20) say
 * "waiting" of it for ever, and keep the pod for another minute.
 */
function isContainerOver({ state, lastState }: ContainerStatus): boolean {
  if (state?.terminated) return true;
  return state?.waiting !== undefined && lastState?.terminated?.reason === "ContainerStatusUnknown";
}

function generationOf(annotations: Record<string, string> | undefined): number {
  return Number(annotations?.[GENERATION_ANNOTATION] ?? 0);
}

export function generationOfPod(pod: Pod): number {
  return generationOf(pod.metadata.annotations);
}

/** Whether its status is of what it is now: else its conditions are those of an earlier attempt. */
function isObserved({ metadata, status }: Deployment): boolean {
  return (status?.observedGeneration ?? 0) >= (metadata.generation ?? 0);
}

/** Where somebody has scaled an environment up, the pod that stays when that is taken back. */
export function longestRunning(pods: Pod[]): Pod | undefined {
  const runs = ({ status }: Pod) =>
    status?.containerStatuses?.some(
      ({ name, state, started }) => name === CONTAINER && state?.running && started,
    );
  const createdMs = (pod: Pod) => timeMs(pod.metadata.creationTimestamp) ?? 0;
  return pods.filter(runs).toSorted((a, b) => createdMs(a) - createdMs(b))[0];
}

function newest(pods: Pod[]): Pod | undefined {
  const createdMs = (pod: Pod) => timeMs(pod.metadata.creationTimestamp) ?? 0;
  return pods.toSorted((a, b) => createdMs(b) - createdMs(a))[0];
}

function condition(object: Deployment | Pod, type: string) {
  return object.status?.conditions?.find((one) => one.type === type);
}

function withoutPod({ deployment, pods: all }: Sight, pods: Pod[]): { message: string; problem?: Problem } {
  if (pods.length > 0) return { message: "Waiting for the previous containers to end" };
  const failure = deployment && isObserved(deployment) ? condition(deployment, "ReplicaFailure") : undefined;
  const said = failure?.status === "True" ? (failure.message ?? "") : "";
  const sinceMs = timeMs(failure?.lastTransitionTime) ?? 0;
  if (isQuotaExceeded(said)) {
    const message = quotaWords(said);
    return { message, problem: { kind: "quota", message, sinceMs } };
  }
  const missing = missingWords(said);
  if (missing) return { message: missing, problem: { kind: "missing", message: missing, sinceMs } };
  if (/forbidden|invalid/i.test(said) && !/serviceaccount|being terminated/i.test(said)) {
    const message = `The cluster refuses the container: ${shorten(said)}`;
    return { message, problem: { kind: "rejected", message, sinceMs } };
  }
  const evicted = all.find((pod) => pod.status?.reason === "Evicted");
  if (evicted) return { message: `Moved away by the node: ${shorten(evicted.status?.message ?? "evicted")}` };
  return { message: "Preparing the workspace" };
}

function fromPod(pod: Pod, generation: number, sight: Sight, context: ObserveContext): Observed {
  const status = pod.status?.containerStatuses?.find((one) => one.name === CONTAINER);
  const image = imageOf(pod);
  const failed = status && finalProblem(status, pod, image, context.now);
  if (failed) return { phase: "failed", generation, problem: failed };
  const startedAtMs = timeMs(status?.state?.running?.startedAt);
  if (!status || startedAtMs === undefined) {
    return { phase: "provisioning", generation, ...beforeStart(pod, status, sight, context.now) };
  }
  // Not the pod's Ready: that turns false when its node falls silent, which says nothing about its
  // processes, and on Kubernetes 1.20 follows the startup probe by up to a minute.
  if (status.started) return { phase: "running", generation, startedAtMs };
  const progress = context.progress(pod, status.restartCount);
  if (!progress) {
    return {
      phase: "installing",
      generation,
      step: 1,
      steps: 1,
      message: "Running the startup commands",
      startedAtMs,
    };
  }
  if (progress.done) return { phase: "configuring", generation, startedAtMs };
  const { step, steps, command } = progress;
  const message = `Step ${step} of ${steps}: ${commandSummary(command)}`;
  return { phase: "installing", generation, step, steps, message, startedAtMs };
}

export function imageOf(pod: Pod): string {
  return pod.spec.containers.find((one) => one.name === CONTAINER)?.image ?? "";
}

/** What ends an attempt at once, from how the container has ended. */
function finalProblem(status: ContainerStatus, pod: Pod, image: string, now: number): Problem | undefined {
  const waiting = status.state?.waiting;
  const ended = status.state?.terminated ?? status.lastState?.terminated;
  const sinceMs = timeMs(ended?.finishedAt) ?? scheduledMs(pod) ?? now;
  const never = hasNotStarted(waiting) && neverStartsWords(image, waiting?.message ?? "");
  if (never) return { kind: "crashed", message: never, sinceMs };
  if (!ended) return undefined;
  const problem = endProblem(ended, pod, image);
  if (problem) return { ...problem, sinceMs };
  const restarting = status.state?.running !== undefined;
  if (status.restartCount < CRASHES || (restarting && status.started)) return undefined;
  if (!inSuccession(status, ended, pod)) return undefined;
  const message = hasNotStarted(ended)
    ? startErrorWords(image, ended.message ?? "")
    : `The container has ended ${status.restartCount} times, last with exit code ${ended.exitCode}`;
  return { kind: "crashed", message, sinceMs };
}

function hasNotStarted(state: { reason?: string } | undefined): boolean {
  return START_FAILED.has(state?.reason ?? "");
}

/**
 * Restarts are counted over the pod's whole life, those of its node among them: what was ready for long
 * before it ended begins anew. Kubelet holds back what ends in succession, but not what takes more than ten
 * minutes each time, as an installation may: that one has not become ready in between.
 */
function inSuccession({ state }: ContainerStatus, ended: Termination, pod: Pod): boolean {
  if (state?.waiting?.reason === "CrashLoopBackOff") return true;
  const unreadySinceMs = timeMs(condition(pod, "Ready")?.lastTransitionTime);
  const startedMs = timeMs(ended.startedAt);
  return unreadySinceMs !== undefined && startedMs !== undefined && unreadySinceMs < startedMs;
}

function endProblem(ended: Termination, pod: Pod, image: string): Omit<Problem, "sinceMs"> | undefined {
  const said = shorten(ended.message ?? "");
  if (ended.reason === "OOMKilled") {
    const limit = pod.spec.containers.find((one) => one.name === CONTAINER)?.resources?.limits?.memory;
    const during = said === "" ? "" : `. ${said}`;
    return { kind: "out_of_memory", message: `ran out of memory (limit ${limit})${during}` };
  }
  const never = hasNotStarted(ended) && neverStartsWords(image, ended.message ?? "");
  if (never) return { kind: "crashed", message: never };
  if (ended.exitCode === STARTUP_FAILED_EXIT_CODE) {
    return { kind: "command_failed", message: said || "A startup command failed" };
  }
  return undefined;
}

function scheduledMs(pod: Pod): number | undefined {
  return timeMs(condition(pod, "PodScheduled")?.lastTransitionTime);
}

function beforeStart(
  pod: Pod,
  status: ContainerStatus | undefined,
  { claim, events }: Sight,
  now: number,
): { message: string; problem?: Problem } {
  const scheduled = condition(pod, "PodScheduled");
  if (scheduled?.status !== "True") return beforeScheduling(pod, claim, events, now);
  const image = imageOf(pod);
  const waiting = status?.state?.waiting;
  const own = events.filter((event) => event.involvedObject.uid === pod.metadata.uid);
  const failure = pullFailure(own, pod.metadata.uid, image);
  if (waiting?.reason && PULL_FAILED.has(waiting.reason)) {
    const problem: Problem = {
      kind: "image_pull",
      message: failure?.message ?? imagePullWords(image, waiting.message ?? waiting.reason),
      sinceMs: failure?.sinceMs ?? scheduledMs(pod) ?? now,
    };
    return { message: problem.message, problem };
  }
  const missing = missingProblem(waiting, own, scheduledMs(pod) ?? now);
  if (missing) return { message: missing.message, problem: missing };
  if (waiting?.reason === "CreateContainerConfigError" || waiting?.reason === "CreateContainerError") {
    return { message: `The container can't be made yet: ${shorten(waiting.message ?? waiting.reason)}` };
  }
  if (hasNotStarted(waiting)) {
    return { message: `The container can't be started yet: ${startCause(waiting?.message ?? "")}` };
  }
  if (status && status.restartCount > 0) return { message: "Starting the container again" };
  const reasons = new Map(own.map((event) => [event.reason, event]));
  const mount = reasons.get("FailedMount") ?? reasons.get("FailedAttachVolume");
  if (reasons.has("Pulling") && !reasons.has("Pulled")) return { message: `Pulling image ${image}` };
  if (mount && !reasons.has("Pulled")) {
    return { message: `Waiting for the volume: ${shorten(mount.message ?? "it can't be mounted yet")}` };
  }
  return { message: "Starting the container" };
}

/** Nothing tells when it is there again: what kubelet last said of it holds until it has got further. */
function missingProblem(
  waiting: { reason?: string; message?: string } | undefined,
  events: KubeEvent[],
  scheduledMs: number,
): Problem | undefined {
  const unmade = waiting?.reason === "CreateContainerConfigError" ? missingWords(waiting.message ?? "") : "";
  if (unmade) return { kind: "missing", message: unmade, sinceMs: scheduledMs };
  const mounting = ({ reason, message = "" }: KubeEvent) =>
    reason === "FailedMount" ? missingWords(message) : undefined;
  const last = events.findLast((event) => mounting(event) || MOUNTED.has(event.reason ?? ""));
  const unmounted = last && mounting(last);
  return unmounted ? { kind: "missing", message: unmounted, sinceMs: eventTimeMs(last) } : undefined;
}

function beforeScheduling(
  pod: Pod,
  claim: Claim | null,
  events: KubeEvent[],
  now: number,
): { message: string; problem?: Problem } {
  const scheduled = condition(pod, "PodScheduled");
  if (scheduled?.reason !== "Unschedulable") {
    return { message: claim?.status?.phase === "Pending" ? "Waiting for the volume" : "Waiting for a node" };
  }
  const sinceMs = timeMs(scheduled.lastTransitionTime) ?? timeMs(pod.metadata.creationTimestamp) ?? now;
  const missing = missingWords(scheduled.message ?? "");
  if (missing) return { message: missing, problem: { kind: "missing", message: missing, sinceMs } };
  let message = unschedulableWords(scheduled.message ?? "");
  const provisioning = events.findLast((event) => event.reason === "ProvisioningFailed");
  if (claim?.status?.phase === "Pending" && provisioning) {
    message = `The volume can't be made: ${shorten(provisioning.message ?? "")}`;
  }
  return { message, problem: { kind: "unschedulable", message, sinceMs } };
}
