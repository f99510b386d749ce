import type { Plan, Resources, Role } from "../db/schema.ts";
import { invalidField } from "../errors.ts";
import { formatBytes, formatCpuMillis, parseBytes, parseCpuMillis } from "../lib/quantity.ts";
import type { ResourceLimits } from "../runtime/runtime.ts";

interface PlanLimits {
  /** Environments at a time, terminated ones not counted. */
  environments: number;
  /** Ceiling of one environment. */
  ceiling: Resources;
}

export const PLAN_LIMITS: Record<Plan, PlanLimits> = {
  free: { environments: 1, ceiling: { cpu: "1000m", memory: "2Gi", storage: "20Gi" } },
  starter: { environments: 3, ceiling: { cpu: "2000m", memory: "4Gi", storage: "50Gi" } },
  pro: { environments: 10, ceiling: { cpu: "4000m", memory: "8Gi", storage: "100Gi" } },
};

/** Below these nothing starts. */
const FLOOR: ResourceLimits = { cpuMillis: 10, memoryBytes: 16 * 2 ** 20, storageBytes: 16 * 2 ** 20 };

const NAMES = {
  cpu: "cpuMillis",
  memory: "memoryBytes",
  storage: "storageBytes",
} as const satisfies Record<keyof Resources, keyof ResourceLimits>;

/** Administrators are bound by no plan, only by the cluster: null. */
export function planLimits(owner: { plan: Plan; role: Role }): PlanLimits | null {
  return owner.role === "admin" ? null : PLAN_LIMITS[owner.plan];
}

/** What all of an owner's environments may take together; null without a plan. */
export function userQuota(owner: {
  plan: Plan;
  role: Role;
}): (ResourceLimits & { environments: number }) | null {
  const limits = planLimits(owner);
  if (!limits) return null;
  const one = parseLimits(limits.ceiling);
  return {
    environments: limits.environments,
    cpuMillis: one.cpuMillis * limits.environments,
    memoryBytes: one.memoryBytes * limits.environments,
    storageBytes: one.storageBytes * limits.environments,
  };
}

/**
 * Quantities as numbers.
 *
 * @throws AppError validation, naming the field, for what is no quantity
 */
export function parseLimits(resources: Resources): ResourceLimits {
  return {
    cpuMillis: parse("cpu", resources.cpu, parseCpuMillis),
    memoryBytes: parse("memory", resources.memory, parseBytes),
    storageBytes: parse("storage", resources.storage, parseBytes),
  };
}

function parse(field: keyof Resources, text: string, read: (text: string) => number | undefined): number {
  const value = read(text);
  if (value !== undefined) return value;
  throw invalidField(`resources.${field}`, `"${text}" is not a Kubernetes quantity`, "invalid_format");
}

/** Whether both come to the same, however they are written: "0.5" is "500m". */
export function sameResources(a: Resources, b: Resources): boolean {
  return Bun.deepEquals(a, b) || Bun.deepEquals(parseLimits(a), parseLimits(b));
}

/**
 * Checks what is asked for against the floor and the plan's ceiling.
 *
 * @param before what there is: what stays as it is may be more than the plan allows now
 * @throws AppError validation, with the ceiling in the message
 */
export function checkResources(
  resources: Resources,
  owner: { plan: Plan; role: Role },
  before?: ResourceLimits,
): ResourceLimits {
  const asked = parseLimits(resources);
  const limits = planLimits(owner);
  const ceiling = limits ? parseLimits(limits.ceiling) : null;
  for (const field of ["cpu", "memory", "storage"] as const) {
    const key = NAMES[field];
    if (asked[key] === before?.[key]) continue;
    if (asked[key] < FLOOR[key]) {
      throw invalidField(`resources.${field}`, `must be at least ${format(key, FLOOR[key])}`, "too_small");
    }
    if (ceiling && asked[key] > ceiling[key]) {
      const message = `exceeds the ${owner.plan} plan's ceiling of ${limits?.ceiling[field]} for one environment`;
      throw invalidField(`resources.${field}`, message, "plan_ceiling");
    }
  }
  return asked;
}

function format(key: keyof ResourceLimits, value: number): string {
  return key === "cpuMillis" ? formatCpuMillis(value) : formatBytes(value);
}
