import type { Problem } from "../runtime.ts";
import { FIELD_MANAGER } from "./api/client.ts";
import { type Deployment, type FieldSet, timeMs } from "./api/objects.ts";
import { CONTAINER } from "./names.ts";

/* What somebody has changed of a Deployment's containers: the API server notes who has set which field. */

const POD = ["f:spec", "f:template", "f:spec"];
const IN_CONTAINER = [...POD, "f:containers", `k:${JSON.stringify({ name: CONTAINER })}`];

/**
 * Fields that every Deployment of ours has set, whichever version of DevPocket has written it: one that has
 * never been set would be taken for changed. `replicas` is none of them, it is written in two ways.
 */
const FIELDS: [what: string, path: string[]][] = [
  ["image", [...IN_CONTAINER, "f:image"]],
  ["command", [...IN_CONTAINER, "f:command"]],
  ["resources", [...IN_CONTAINER, "f:resources", "f:limits", "f:cpu"]],
  ["resources", [...IN_CONTAINER, "f:resources", "f:limits", "f:memory"]],
  ["resources", [...IN_CONTAINER, "f:resources", "f:requests", "f:cpu"]],
  ["resources", [...IN_CONTAINER, "f:resources", "f:requests", "f:memory"]],
  ["privileges", [...IN_CONTAINER, "f:securityContext", "f:privileged"]],
  ["privileges", [...IN_CONTAINER, "f:securityContext", "f:allowPrivilegeEscalation"]],
  ["privileges", [...IN_CONTAINER, "f:securityContext", "f:capabilities", "f:drop"]],
  ["service account", [...POD, "f:serviceAccountName"]],
  ["service account", [...POD, "f:automountServiceAccountToken"]],
];

/**
 * A field that we have applied and that is no longer ours was changed or removed; applied again, it is ours.
 * What somebody has added beside our fields (a label, an annotation as of `kubectl rollout restart`) stays, and
 * so does what a cluster's admission makes of our own request: that is noted as our update.
 */
export function editOf({ metadata: { managedFields = [] } }: Deployment): Problem | undefined {
  const ours = managedFields.filter(({ manager }) => manager === FIELD_MANAGER);
  if (!ours.some(({ operation }) => operation === "Apply")) return undefined;
  const lost = FIELDS.find(([, path]) => !ours.some(({ fieldsV1 }) => has(fieldsV1, path)));
  if (!lost) return undefined;
  const times = managedFields.map(({ time }) => timeMs(time) ?? 0);
  const message = `Somebody has changed its ${lost[0]} in the cluster; it is changed back`;
  return { kind: "altered", message, sinceMs: Math.max(...times) };
}

function has(fields: FieldSet | undefined, path: string[]): boolean {
  let within = fields;
  for (const part of path) within = within?.[part];
  return within !== undefined;
}
