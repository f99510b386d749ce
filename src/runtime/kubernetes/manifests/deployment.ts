import type { Manifest } from "../api/objects.ts";
import { policyRules } from "./permissions.ts";

/*
 * DevPocket itself in a cluster. None of these objects carries the label by which the sweep knows what it
 * made for environments.
 */

const NAME = "devpocket";
const PORT = 8000;
/** Any user but root; the image's files need no owner. */
const USER_ID = 10001;
/** Room for 500 terminals with 3 MiB of scrollback each. */
const MOST_MEMORY = "2Gi";

export interface DeploymentOptions {
  image: string;
  namespace?: string;
  /** A Kubernetes quantity. */
  storage?: string;
}

/** What `devpocket manifests` prints, in the order in which it is applied. */
export function serverManifests({ image, namespace = NAME, storage = "5Gi" }: DeploymentOptions): Manifest[] {
  const labels = { "app.kubernetes.io/name": NAME, "app.kubernetes.io/component": "server" };
  const metadata = { name: NAME, namespace, labels };
  // Of the namespace's name, so that two servers can share a cluster.
  const clusterWide = { name: namespace, labels };
  return [
    {
      apiVersion: "v1",
      kind: "Namespace",
      metadata: {
        name: namespace,
        labels: { ...labels, "pod-security.kubernetes.io/enforce": "restricted" },
      },
    },
    { apiVersion: "v1", kind: "ServiceAccount", metadata, automountServiceAccountToken: false },
    {
      apiVersion: "rbac.authorization.k8s.io/v1",
      kind: "ClusterRole",
      metadata: clusterWide,
      rules: policyRules(),
    },
    {
      apiVersion: "rbac.authorization.k8s.io/v1",
      kind: "ClusterRoleBinding",
      metadata: clusterWide,
      roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "ClusterRole", name: namespace },
      subjects: [{ kind: "ServiceAccount", name: NAME, namespace }],
    },
    {
      apiVersion: "v1",
      kind: "PersistentVolumeClaim",
      metadata,
      spec: { accessModes: ["ReadWriteOnce"], resources: { requests: { storage } } },
    },
    {
      apiVersion: "v1",
      kind: "Service",
      metadata,
      spec: {
        type: "ClusterIP",
        selector: labels,
        ports: [{ name: "http", protocol: "TCP", port: 80, targetPort: "http" }],
      },
    },
    {
      apiVersion: "apps/v1",
      kind: "Deployment",
      metadata,
      spec: {
        // The database is one file with one writer: never two at a time, not even while one replaces the other.
        replicas: 1,
        strategy: { type: "Recreate" },
        selector: { matchLabels: labels },
        template: { metadata: { labels }, spec: podSpec(image) },
      },
    },
  ];
}

function podSpec(image: string) {
  const probe = (path: string) => ({ httpGet: { path, port: "http" }, timeoutSeconds: 5 });
  return {
    serviceAccountName: NAME,
    automountServiceAccountToken: true,
    enableServiceLinks: false,
    terminationGracePeriodSeconds: 30,
    securityContext: {
      runAsNonRoot: true,
      runAsUser: USER_ID,
      runAsGroup: USER_ID,
      fsGroup: USER_ID,
      fsGroupChangePolicy: "OnRootMismatch",
      seccompProfile: { type: "RuntimeDefault" },
    },
    containers: [
      {
        name: NAME,
        image,
        env: Object.entries({
          HOST: "0.0.0.0",
          PORT: String(PORT),
          DATA_DIR: "/data",
          LOCAL_RUNTIME: "off",
          LOG_FORMAT: "json",
        }).map(([name, value]) => ({ name, value })),
        ports: [{ name: "http", containerPort: PORT, protocol: "TCP" }],
        startupProbe: { ...probe("/health/ready"), periodSeconds: 2, failureThreshold: 60 },
        readinessProbe: { ...probe("/health/ready"), periodSeconds: 10 },
        livenessProbe: { ...probe("/health/live"), periodSeconds: 20, failureThreshold: 3 },
        resources: { requests: { cpu: "100m", memory: "256Mi" }, limits: { memory: MOST_MEMORY } },
        securityContext: {
          allowPrivilegeEscalation: false,
          readOnlyRootFilesystem: true,
          capabilities: { drop: ["ALL"] },
        },
        volumeMounts: [
          { name: "data", mountPath: "/data" },
          { name: "tmp", mountPath: "/tmp" },
        ],
      },
    ],
    volumes: [
      { name: "data", persistentVolumeClaim: { claimName: NAME } },
      { name: "tmp", emptyDir: {} },
    ],
  };
}

/** `manifests` as a YAML stream, for `kubectl apply -f -`. */
export function toYaml(manifests: readonly Manifest[]): string {
  return manifests.map((manifest) => `---\n${Bun.YAML.stringify(manifest, null, 2)}\n`).join("");
}
