/*
 * Kubernetes objects as they come over the wire, as far as they are read here. (The library's types have
 * dates where JSON has text and rename some fields; they fit only what its own serializer has made.)
 */

export interface Metadata {
  name?: string;
  namespace?: string;
  uid?: string;
  resourceVersion?: string;
  generation?: number;
  creationTimestamp?: string;
  deletionTimestamp?: string;
  labels?: Record<string, string>;
  annotations?: Record<string, string>;
  /** Without any of these, the cluster's garbage collector deletes the object. */
  ownerReferences?: OwnerReference[];
  /** Who has set which fields. */
  managedFields?: ManagedFields[];
}

export interface OwnerReference {
  apiVersion: string;
  kind: string;
  name: string;
  uid: string;
}

export interface ManagedFields {
  manager?: string;
  operation?: string;
  time?: string;
  fieldsV1?: FieldSet;
}

/** By "f:name" of a field or "k:{…}" of an item, what is set within it. */
export interface FieldSet {
  [part: string]: FieldSet;
}

/** What is applied. */
export interface Manifest {
  apiVersion: string;
  kind: string;
  metadata: Metadata & { name: string };
  [field: string]: unknown;
}

export interface KubeObject {
  metadata: Metadata;
}

export interface Condition {
  type: string;
  status: string;
  reason?: string;
  message?: string;
  lastTransitionTime?: string;
}

export interface Namespace extends KubeObject {
  status?: { phase?: string };
}

/** A NetworkPolicy, LimitRange or ResourceQuota: what they say is only compared. */
export interface Restriction extends KubeObject {
  spec: Record<string, unknown>;
}

export interface Deployment extends KubeObject {
  spec: {
    replicas?: number;
    template: { metadata?: Metadata; spec: PodSpec };
  };
  status?: { observedGeneration?: number; conditions?: Condition[] };
}

export interface PodSpec {
  nodeName?: string;
  containers: {
    name: string;
    image?: string;
    resources?: { requests?: Record<string, string>; limits?: Record<string, string> };
  }[];
}

export interface Pod extends KubeObject {
  spec: PodSpec;
  status?: {
    phase?: string;
    reason?: string;
    message?: string;
    startTime?: string;
    conditions?: Condition[];
    containerStatuses?: ContainerStatus[];
  };
}

export interface ContainerStatus {
  name: string;
  ready: boolean;
  started?: boolean;
  restartCount: number;
  state?: ContainerState;
  lastState?: ContainerState;
}

export interface ContainerState {
  waiting?: { reason?: string; message?: string };
  running?: { startedAt?: string };
  terminated?: Termination;
}

export interface Termination {
  exitCode: number;
  reason?: string;
  message?: string;
  startedAt?: string;
  finishedAt?: string;
}

export interface Claim extends KubeObject {
  spec: { storageClassName?: string; resources?: { requests?: Record<string, string> } };
  status?: { phase?: string; capacity?: Record<string, string>; conditions?: Condition[] };
}

export interface StorageClass extends KubeObject {
  allowVolumeExpansion?: boolean;
}

export interface Node extends KubeObject {
  spec?: { unschedulable?: boolean; taints?: { key: string; effect: string }[] };
  status?: { allocatable?: Record<string, string>; conditions?: Condition[] };
}

export interface KubeEvent extends KubeObject {
  type?: string;
  reason?: string;
  message?: string;
  count?: number;
  firstTimestamp?: string | null;
  lastTimestamp?: string | null;
  eventTime?: string | null;
  series?: { count?: number; lastObservedTime?: string };
  involvedObject: { kind?: string; name?: string; uid?: string };
}

/** A Kubernetes time in milliseconds since the epoch; undefined for none. */
export function timeMs(time: string | null | undefined): number | undefined {
  const ms = time ? Date.parse(time) : Number.NaN;
  return Number.isNaN(ms) ? undefined : ms;
}
