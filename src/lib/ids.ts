import { randomFillSync } from "node:crypto";

const random = new Uint8Array(6);
let lastMs = 0;
let sequence = 0;

/**
 * A new identifier: 24 lower-case hex digits that sort by time of creation.
 *
 * 12 digits of milliseconds since the epoch, 4 of a sequence within the millisecond, 8 of randomness.
 * Within one process the order is strict, also when the clock steps back.
 */
export function newId(now: number = Date.now()): string {
  if (now > lastMs) {
    lastMs = now;
    sequence = 0;
  } else if (++sequence > 0xffff) {
    lastMs += 1;
    sequence = 0;
  }
  randomFillSync(random, 0, 4);
  const noise = Buffer.from(random.buffer, 0, 4).toString("hex");
  return lastMs.toString(16).padStart(12, "0") + sequence.toString(16).padStart(4, "0") + noise;
}

/** Whether `text` has the form of an id. A malformed id is answered like an unknown one. */
export function isId(text: string): boolean {
  return /^[0-9a-f]{24}$/.test(text);
}
