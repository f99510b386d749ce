interface UntilOptions {
  timeoutMs?: number;
  intervalMs?: number;
  /** Said when it did not come about; may show what there was instead. */
  message?: string | (() => string);
}

/** Waits until `condition` gives something truthy, and gives it. Fails when it did not in time. */
export async function until<T>(
  condition: () => T | Promise<T>,
  { timeoutMs = 10_000, intervalMs = 10, message = "the condition did not come about" }: UntilOptions = {},
): Promise<NonNullable<Exclude<T, false>>> {
  const end = performance.now() + timeoutMs;
  for (;;) {
    const value = await condition();
    if (value) return value as NonNullable<Exclude<T, false>>;
    if (performance.now() >= end) {
      throw new Error(`${typeof message === "string" ? message : message()} (within ${timeoutMs} ms)`);
    }
    await Bun.sleep(intervalMs);
  }
}
