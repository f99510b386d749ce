const SUFFIXES: Record<string, number> = {
  "": 1,
  n: 1e-9,
  u: 1e-6,
  m: 1e-3,
  k: 1e3,
  M: 1e6,
  G: 1e9,
  T: 1e12,
  P: 1e15,
  Ki: 2 ** 10,
  Mi: 2 ** 20,
  Gi: 2 ** 30,
  Ti: 2 ** 40,
  Pi: 2 ** 50,
};

const QUANTITY = /^(\d+(?:\.\d+)?|\.\d+)(?:([eE][+-]?\d{1,3})|(n|u|m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi))?$/;

/**
 * The value of a Kubernetes resource quantity ("500m", "1.5Gi", "1e3") in its base unit: cores or bytes.
 * Undefined for what is not a non-negative quantity.
 *
 * Source: k8s.io/apimachinery/pkg/api/resource. Exa suffixes are left out, they pass 2^53.
 */
export function parseQuantity(text: string): number | undefined {
  const match = QUANTITY.exec(text);
  if (!match) return undefined;
  const [, digits = "", exponent = "", suffix = ""] = match;
  const value = Number(digits + exponent) * (SUFFIXES[suffix] ?? 1);
  return Number.isFinite(value) ? value : undefined;
}

/** Cores as whole thousandths, rounded up as Kubernetes does. */
export function parseCpuMillis(text: string): number | undefined {
  const cores = parseQuantity(text);
  return cores === undefined ? undefined : Math.ceil(Number((cores * 1000).toPrecision(12)));
}

/** Bytes, rounded up to a whole byte. */
export function parseBytes(text: string): number | undefined {
  const bytes = parseQuantity(text);
  // 0.1Ki is 102.4: what is not whole is rounded from its decimal digits, whole numbers are left exact.
  return bytes === undefined || Number.isInteger(bytes) ? bytes : Math.ceil(Number(bytes.toPrecision(15)));
}

export function formatCpuMillis(millis: number): string {
  return `${millis}m`;
}

/** The shortest exact binary form: 1073741824 is "1Gi", 1500 is "1500". */
export function formatBytes(bytes: number): string {
  for (const [suffix, size] of [
    ["Ti", 2 ** 40],
    ["Gi", 2 ** 30],
    ["Mi", 2 ** 20],
    ["Ki", 2 ** 10],
  ] as const) {
    if (bytes >= size && bytes % size === 0) return `${bytes / size}${suffix}`;
  }
  return String(bytes);
}
