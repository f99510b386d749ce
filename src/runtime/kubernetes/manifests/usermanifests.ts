import { formatBytes, formatCpuMillis } from "../../../lib/quantity.ts";
import type { EnvironmentSpec } from "../../runtime.ts";
import type { Manifest } from "../api/objects.ts";
import { LIMIT_RANGE, NETWORK_POLICY, namespaceName, QUOTA, SERVICE_ACCOUNT, userLabels } from "../names.ts";

/* What a user has in a cluster, whatever their environments. */

/** Not to be reached from an environment: the cluster's own and its neighbours' networks, RFC 1918, 3927, 6598. */
export const PRIVATE_NETWORKS = [
  "10.0.0.0/8",
  "100.64.0.0/10",
  "127.0.0.0/8",
  "169.254.0.0/16",
  "172.16.0.0/12",
  "192.168.0.0/16",
];

/** Where NodeLocal DNSCache listens on every node (a link-local address, closed to everything but DNS). */
const NODE_LOCAL_DNS = "169.254.20.10/32";

export interface UserManifests {
  namespace: Manifest;
  serviceAccount: Manifest;
  limitRange: Manifest;
  networkPolicy: Manifest;
  /** Null: the user has none. */
  quota: Manifest | null;
}

export function userManifests(
  userId: string,
  quota: EnvironmentSpec["userQuota"],
  serverId: string,
): UserManifests {
  const namespace = namespaceName(userId);
  const labels = userLabels(userId, serverId);
  return {
    namespace: { apiVersion: "v1", kind: "Namespace", metadata: { name: namespace, labels } },
    // One of our own, since a pod can't be made before its service account: the namespace's `default` comes
    // some time after the namespace.
    serviceAccount: {
      apiVersion: "v1",
      kind: "ServiceAccount",
      metadata: { name: SERVICE_ACCOUNT, namespace, labels },
      automountServiceAccountToken: false,
    },
    limitRange: {
      apiVersion: "v1",
      kind: "LimitRange",
      metadata: { name: LIMIT_RANGE, namespace, labels },
      spec: {
        limits: [
          {
            type: "Container",
            default: { cpu: "500m", memory: "512Mi" },
            defaultRequest: { cpu: "50m", memory: "512Mi" },
          },
        ],
      },
    },
    networkPolicy: {
      apiVersion: "networking.k8s.io/v1",
      kind: "NetworkPolicy",
      metadata: { name: NETWORK_POLICY, namespace, labels },
      spec: {
        podSelector: {},
        policyTypes: ["Ingress", "Egress"],
        ingress: [],
        egress: [
          {
            to: [{ namespaceSelector: {} }, { ipBlock: { cidr: NODE_LOCAL_DNS } }],
            ports: [
              { protocol: "UDP", port: 53 },
              { protocol: "TCP", port: 53 },
            ],
          },
          { to: [{ ipBlock: { cidr: "0.0.0.0/0", except: PRIVATE_NETWORKS } }] },
        ],
      },
    },
    quota: quota && {
      apiVersion: "v1",
      kind: "ResourceQuota",
      metadata: { name: QUOTA, namespace, labels },
      spec: {
        hard: {
          "limits.cpu": formatCpuMillis(quota.cpuMillis),
          "limits.memory": formatBytes(quota.memoryBytes),
          "requests.storage": formatBytes(quota.storageBytes),
          // Each environment has one claim, also while it is stopped.
          persistentvolumeclaims: String(quota.environments),
        },
      },
    },
  };
}
