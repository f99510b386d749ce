/** One line of what DevPocket must be allowed to do, in the terms of RBAC. */
export interface Permission {
  /** "" is the core group. */
  group: string;
  resource: string;
  subresource?: string;
  verbs: readonly Verb[];
}

type Verb = "get" | "list" | "watch" | "create" | "patch" | "delete";

/** Server-side apply of an object that may not be there yet. */
const APPLY = ["create", "patch"] as const;
const WATCH = ["list", "watch"] as const;
const SEE = ["get", ...WATCH] as const;

/**
 * Everything that the runtime does in a cluster, in any namespace: users' namespaces come and go. The
 * manifests' ClusterRole is made of it and a kubeconfig is vetted against it, so a request that is not
 * listed here fails on a cluster that was set up as documented.
 *
 * Not listed on purpose: `get` and `list` of secrets (values are written, never read back; where a kubeconfig
 * may list them, the sweep finds those that stand alone, by their metadata), anything of `nodes/proxy` (it would reach into every pod of a node), and every way to grant rights.
 */
export const PERMISSIONS: readonly Permission[] = [
  { group: "", resource: "namespaces", verbs: ["get", "list", ...APPLY, "delete"] },
  { group: "", resource: "pods", verbs: ["list", "watch", "delete"] },
  // An exec over WebSocket begins with a GET; API servers ask for one right, the other, or both.
  { group: "", resource: "pods", subresource: "exec", verbs: ["get", "create"] },
  { group: "", resource: "pods", subresource: "log", verbs: ["get"] },
  { group: "", resource: "events", verbs: [...WATCH, "create"] },
  { group: "", resource: "persistentvolumeclaims", verbs: [...SEE, ...APPLY, "delete"] },
  { group: "", resource: "configmaps", verbs: ["list", ...APPLY, "delete"] },
  { group: "", resource: "secrets", verbs: [...APPLY, "delete"] },
  { group: "", resource: "services", verbs: ["list", ...APPLY, "delete"] },
  { group: "", resource: "serviceaccounts", verbs: APPLY },
  { group: "", resource: "limitranges", verbs: [...WATCH, ...APPLY] },
  { group: "", resource: "resourcequotas", verbs: [...WATCH, ...APPLY, "delete"] },
  { group: "apps", resource: "deployments", verbs: [...SEE, ...APPLY, "delete"] },
  { group: "networking.k8s.io", resource: "networkpolicies", verbs: [...WATCH, ...APPLY] },
  { group: "storage.k8s.io", resource: "storageclasses", verbs: ["get", "list"] },
  { group: "metrics.k8s.io", resource: "pods", verbs: ["get"] },
  { group: "", resource: "nodes", verbs: ["get", "list"] },
];

/** A permission in words: "create pods/exec", "list deployments.apps". */
export function permissionName({ group, resource, subresource }: Permission, verb: string): string {
  const kind = `${resource}${group && `.${group}`}${subresource ? `/${subresource}` : ""}`;
  return `${verb} ${kind}`;
}

export interface PolicyRule {
  apiGroups: string[];
  resources: string[];
  verbs: string[];
}

/** `permissions` as rules of a ClusterRole. */
export function policyRules(permissions = PERMISSIONS): PolicyRule[] {
  return permissions.map(({ group, resource, subresource, verbs }) => ({
    apiGroups: [group],
    resources: [subresource ? `${resource}/${subresource}` : resource],
    verbs: [...verbs],
  }));
}
