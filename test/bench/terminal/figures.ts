/** The smallest value that at least `part` of all are not above. */
export function percentile(values: readonly number[], part: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? Number.NaN;
}

export function median(values: readonly number[]): number {
  return percentile(values, 0.5);
}

/** Each is compared with what was measured beside it, in the same round: what else the machine did is in both. */
export function medianRatio(values: readonly number[], base: readonly number[]): number {
  return median(values.map((value, n) => value / (base[n] ?? Number.NaN)));
}

/** Columns as wide as they need to be; the first is left-aligned. */
export function table(rows: string[][]): string {
  const widths: number[] = [];
  for (const row of rows) {
    for (const [n, cell] of row.entries()) widths[n] = Math.max(widths[n] ?? 0, cell.length);
  }
  const line = (row: string[]) =>
    row
      .map((cell, n) => (n === 0 ? cell.padEnd(widths[n] ?? 0) : cell.padStart(widths[n] ?? 0)))
      .join("  ")
      .trimEnd();
  return rows.map(line).join("\n");
}
