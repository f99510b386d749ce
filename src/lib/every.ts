/**
 * Calls `work` every `ms`, until `clearInterval`. What it throws goes to `failed`, and the next time may do;
 * nobody else would catch it.
 */
export function every(ms: number, work: () => void, failed: (error: unknown) => void): Timer {
  return setInterval(() => {
    try {
      work();
    } catch (error) {
      failed(error);
    }
  }, ms);
}
