import type { Logger } from "../../../lib/logger.ts";
import type { Hints } from "../../hints.ts";
import type { EnvironmentRef } from "../../runtime.ts";
import type { KubeClient } from "../api/client.ts";
import type { Claim, Deployment, KubeEvent, KubeObject, Pod } from "../api/objects.ts";
import { allOf, type Kind } from "../api/paths.ts";
import { environmentOf, isNewerEvent } from "../events.ts";
import { refOf, selector, serverLabels } from "../names.ts";
import { type Informer, type InformerHandlers, type InformerLimits, startInformer } from "./informer.ts";
import { type Isolation, watchIsolation } from "./isolation.ts";

/** What a watch has told of an environment's objects; never newer than the cluster, at times older. */
export interface Mirror {
  /** Whether every watch has once been through. */
  synced(): boolean;
  deployment(environmentId: string): Deployment | undefined;
  claim(environmentId: string): Claim | undefined;
  pods(environmentId: string): Pod[];
  /** The Kubernetes events of an environment's objects, oldest first. */
  events(environmentId: string): KubeEvent[];
  isolation: Isolation;
}

interface MirrorOptions {
  client: KubeClient;
  serverId: string;
  hints: Hints;
  log: Logger;
  signal: AbortSignal;
  limits?: InformerLimits;
}

export function startMirror({ client, serverId, hints, log, signal, limits }: MirrorOptions): Mirror {
  const shared = { client, log, signal, ...(limits ? { limits } : {}) };
  const labelSelector = selector(serverLabels(serverId));
  const ours = <T extends KubeObject>(kind: Kind) => {
    const shelf = createShelf<T>((object) => refOf(object.metadata.labels), hints);
    const informer = startInformer<T>({ ...shared, path: allOf(kind), query: { labelSelector } }, shelf);
    return { shelf, informer };
  };
  const deployments = ours<Deployment>("deployments");
  const claims = ours<Claim>("persistentvolumeclaims");
  const pods = ours<Pod>("pods");
  // Events carry no labels: all of the cluster's come by, and those of environments are kept.
  const events = createShelf<KubeEvent>(environmentOf, hints);
  const informers: Informer[] = [
    deployments.informer,
    claims.informer,
    pods.informer,
    startInformer<KubeEvent>({ ...shared, path: allOf("events"), query: {} }, events),
  ];
  const isolation = watchIsolation({
    ...shared,
    serverId,
    onTurn(namespace) {
      for (const { metadata } of deployments.shelf.all()) {
        const ref = metadata.namespace === namespace && refOf(metadata.labels);
        if (ref) hints.tell(ref);
      }
    },
  });
  return {
    synced: () => informers.every((informer) => informer.synced),
    deployment: (id) => deployments.shelf.of(id)[0],
    claim: (id) => claims.shelf.of(id)[0],
    pods: (id) => pods.shelf.of(id),
    events: (id) => events.of(id).toSorted((a, b) => (isNewerEvent(a, b) ? 1 : -1)),
    isolation,
  };
}

interface Shelf<T> extends InformerHandlers<T> {
  of(environmentId: string): T[];
  all(): T[];
}

/** Keeps objects by the environment that they belong to, and tells of every change. */
function createShelf<T extends KubeObject>(
  owner: (object: T) => EnvironmentRef | undefined,
  hints: Hints,
): Shelf<T> {
  let kept = new Map<string, { ref: EnvironmentRef; objects: Map<string, T> }>();
  const keyOf = ({ metadata }: KubeObject) => `${metadata.namespace}/${metadata.name}`;
  const put = (object: T) => {
    const ref = owner(object);
    if (!ref) return;
    const place = kept.get(ref.environmentId) ?? { ref, objects: new Map<string, T>() };
    place.objects.set(keyOf(object), object);
    kept.set(ref.environmentId, place);
  };
  return {
    all: () => [...kept.values()].flatMap(({ objects }) => [...objects.values()]),
    of: (environmentId) => [...(kept.get(environmentId)?.objects.values() ?? [])],
    replaced(items) {
      const before = kept;
      kept = new Map();
      items.forEach(put);
      for (const [id, { ref }] of new Map([...before, ...kept])) {
        if (!sameVersions(before.get(id)?.objects, kept.get(id)?.objects)) hints.tell(ref);
      }
    },
    changed(object) {
      put(object);
      const ref = owner(object);
      if (ref) hints.tell(ref);
    },
    gone(object) {
      const ref = owner(object);
      const place = ref && kept.get(ref.environmentId);
      if (!place) return;
      place.objects.delete(keyOf(object));
      if (place.objects.size === 0) kept.delete(ref.environmentId);
      hints.tell(ref);
    },
  };
}

function sameVersions(a?: Map<string, KubeObject>, b?: Map<string, KubeObject>): boolean {
  if (a?.size !== b?.size) return false;
  const versionOf = (object?: KubeObject) => object?.metadata.resourceVersion;
  return [...(a ?? [])].every(([key, object]) => versionOf(b?.get(key)) === versionOf(object));
}
