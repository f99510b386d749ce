/**
 * Calls `work` every `ms`, until `clearInterval`. What it throws goes to `failed`: out of a timer it would
 * end the process, and the next time may do.
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
