import type { Logger } from "../../../lib/logger.ts";
import type { Problem } from "../../runtime.ts";
import type { KubeClient } from "../api/client.ts";
import type { Manifest, Restriction } from "../api/objects.ts";
import { allOf } from "../api/paths.ts";
import { userManifests } from "../manifests/usermanifests.ts";
import { LIMIT_RANGE, NETWORK_POLICY, namespaceName, QUOTA, selector, serverLabels } from "../names.ts";
import { type Informer, type InformerLimits, startInformer } from "./informer.ts";

const KINDS = ["networkpolicies", "limitranges", "resourcequotas"] as const;

/** What is made in every user's namespace to keep them apart and to hold them to their share. */
export type RestrictionKind = (typeof KINDS)[number];

const NAMES: Record<RestrictionKind, { kind: string; name: string }> = {
  networkpolicies: { kind: "networkpolicy", name: NETWORK_POLICY },
  limitranges: { kind: "limitrange", name: LIMIT_RANGE },
  resourcequotas: { kind: "resourcequota", name: QUOTA },
};

/** Whether somebody has deleted or edited what restricts the users. */
export interface Isolation {
  /** What is wrong in the user's namespace; undefined too where that is not known. */
  problem(userId: string): Omit<Problem, "sinceMs"> | undefined;
  /** We have written this, and so it is as it should be; null: we want none. */
  wrote(userId: string, kind: RestrictionKind, object: Restriction | null): void;
}

interface IsolationOptions {
  client: KubeClient;
  serverId: string;
  log: Logger;
  signal: AbortSignal;
  limits?: InformerLimits;
  /** Called when something has come to be wrong in a namespace, or is right again. */
  onTurn(namespace: string): void;
}

/**
 * Watches the restrictions. A cluster whose role for us is older than these watches refuses them: nothing is
 * known then, and `ensure` alone restores.
 */
export function watchIsolation({ serverId, onTurn, ...options }: IsolationOptions): Isolation {
  const shelves = new Map(KINDS.map((kind) => [kind, createShelf(kind, serverId, turned)]));
  const wrongs = new Set<string>();
  const query = { labelSelector: selector(serverLabels(serverId)) };
  const informers = new Map<RestrictionKind, Informer>();
  for (const [kind, shelf] of shelves) {
    informers.set(kind, startInformer<Restriction>({ ...options, path: allOf(kind), query }, shelf));
  }

  function problemIn(namespace: string): Omit<Problem, "sinceMs"> | undefined {
    for (const [kind, shelf] of shelves) {
      const state = informers.get(kind)?.synced ? shelf.state(namespace) : "right";
      const object = `${NAMES[kind].kind} "${NAMES[kind].name}"`;
      if (state === "missing") return { kind: "missing", message: `${object} is missing in the cluster` };
      if (state === "altered") {
        return { kind: "altered", message: `${object} was changed in the cluster; it is changed back` };
      }
    }
    return undefined;
  }

  function turned(namespace: string): void {
    const isWrong = problemIn(namespace) !== undefined;
    if (isWrong || wrongs.has(namespace)) onTurn(namespace);
    if (isWrong) wrongs.add(namespace);
    else wrongs.delete(namespace);
  }

  return {
    problem: (userId) => problemIn(namespaceName(userId)),
    wrote(userId, kind, object) {
      shelves.get(kind)?.wrote(namespaceName(userId), object);
    },
  };
}

/** The restrictions of a kind, by namespace, and what they should say. */
function createShelf(kind: RestrictionKind, serverId: string, onChange: (namespace: string) => void) {
  let found = new Map<string, Restriction["spec"]>();
  /** As the cluster has given back what we wrote last: with whatever its version adds to it. */
  const wanted = new Map<string, Restriction["spec"]>();
  const usual = usualSpec(kind, serverId);
  const isOne = ({ metadata }: Restriction) => metadata.name === NAMES[kind].name;
  const put = ({ metadata: { namespace = "" }, spec }: Restriction) => {
    found.set(namespace, spec);
    // What a quota should be is known to `ensure` alone: until then it is taken for right as it is found.
    if (!usual && !wanted.has(namespace)) wanted.set(namespace, spec);
  };
  return {
    state(namespace: string): "right" | "missing" | "altered" {
      const should = wanted.get(namespace) ?? usual;
      if (!should) return "right";
      const is = found.get(namespace);
      if (!is) return "missing";
      return Bun.deepEquals(is, should) ? "right" : "altered";
    },
    wrote(namespace: string, object: Restriction | null) {
      if (object) {
        wanted.set(namespace, object.spec);
        found.set(namespace, object.spec);
      } else {
        wanted.delete(namespace);
        found.delete(namespace);
      }
    },
    replaced(items: Restriction[]) {
      const before = found;
      found = new Map();
      items.filter(isOne).forEach(put);
      for (const namespace of new Set([...before.keys(), ...found.keys()])) onChange(namespace);
    },
    changed(object: Restriction) {
      if (!isOne(object)) return;
      put(object);
      onChange(object.metadata.namespace ?? "");
    },
    gone(object: Restriction) {
      if (!isOne(object)) return;
      found.delete(object.metadata.namespace ?? "");
      onChange(object.metadata.namespace ?? "");
    },
  };
}

/** What is the same for all users, as an API server gives it back. */
function usualSpec(kind: RestrictionKind, serverId: string): Restriction["spec"] | undefined {
  const { networkPolicy, limitRange } = userManifests("any", null, serverId);
  switch (kind) {
    case "networkpolicies":
      return givenBack(networkPolicy);
    case "limitranges":
      return givenBack(limitRange);
    case "resourcequotas":
      return undefined;
  }
}

/** The `spec` of what we write, as an API server gives it back: without fields that are empty lists. */
export function givenBack({ spec }: Manifest): Restriction["spec"] {
  const fields = Object.entries(spec ?? {});
  return Object.fromEntries(fields.filter(([, value]) => !(Array.isArray(value) && value.length === 0)));
}
