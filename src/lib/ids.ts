import { randomFillSync } from "node:crypto";

const TIME_DIGITS = 12;
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
  return leastIdAt(lastMs) + sequence.toString(16).padStart(4, "0") + noise;
}

/** When `id` was made, in milliseconds since the epoch. */
export function timeOf(id: string): number {
  return Number.parseInt(id.slice(0, TIME_DIGITS), 16);
}

/** What the ids of this millisecond and of all later ones are not below. */
export function leastIdAt(ms: number): string {
  return ms.toString(16).padStart(TIME_DIGITS, "0");
}

/** Whether `text` has the form of an id. A malformed id is answered like an unknown one. */
export function isId(text: string): boolean {
  return /^[0-9a-f]{24}$/.test(text);
}
