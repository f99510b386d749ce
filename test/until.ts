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

/** Waits until `look` gives the same over five looks in a row, and gives it: what was at work has come to rest. */
export async function settled<T extends number | string>(look: () => T): Promise<T> {
  let last = look();
  let same = 0;
  const isStill = () => {
    const now = look();
    same = now === last ? same + 1 : 0;
    last = now;
    return same >= 4;
  };
  await until(isStill, { intervalMs: 50, message: () => `it does not come to rest: ${last}` });
  return last;
}
