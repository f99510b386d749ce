import { AppError } from "../errors.ts";
import { Semaphore } from "../lib/semaphore.ts";

/** What a hash takes of memory, in KiB, and passes over it. */
interface Cost {
  memoryCost: number;
  timeCost: number;
}

/** As OWASP's password storage cheat sheet has it: 19 MiB, two passes, one lane. */
const OWASP_COST: Cost = { memoryCost: 19_456, timeCost: 2 };

/** Some seconds of work: who came after them would have gone before their turn. */
const MAX_WAITING = 64;
const RETRY_AFTER_SECONDS = 5;

/** Both throw AppError unavailable while too many wait. */
export interface Passwords {
  hash(password: string): Promise<string>;
  /** With null, for an account that is not there or has no password, it is false after the same time. */
  verify(password: string, hash: string | null): Promise<boolean>;
  /** Whether `hash` was made with other parameters than today's. */
  isOutdated(hash: string): boolean;
}

/**
 * argon2id. Hashing takes a thread and 19 MiB each time: at most `concurrency` run at once, so that a storm of
 * sign-ins leaves the machine to the terminals, and at most `maxWaiting` wait for their turn.
 */
export function createPasswords({
  concurrency = 2,
  maxWaiting = MAX_WAITING,
  cost = OWASP_COST,
}: {
  concurrency?: number;
  maxWaiting?: number;
  cost?: Cost;
} = {}): Passwords {
  const slots = new Semaphore(concurrency);
  const prefix = `$argon2id$v=19$m=${cost.memoryCost},t=${cost.timeCost},p=1$`;
  /** Costs as much to check as a real hash and matches nothing anyone can know. */
  const nobody = `${prefix}${"A".repeat(43)}$${"A".repeat(43)}`;

  async function inTurn<T>(work: () => Promise<T>): Promise<T> {
    if (slots.waiting >= maxWaiting) {
      throw new AppError("unavailable", "Too many passwords are being checked. Try again in a moment.", {
        retryAfterSeconds: RETRY_AFTER_SECONDS,
      });
    }
    return slots.run(work);
  }

  return {
    hash: (password) =>
      inTurn(() => Bun.password.hash(normalised(password), { algorithm: "argon2id", ...cost })),
    verify: (password, hash) =>
      inTurn(async () => {
        const matches = await Bun.password.verify(normalised(password), hash ?? nobody, "argon2id");
        return matches && hash !== null;
      }),
    isOutdated: (hash) => !hash.startsWith(prefix),
  };
}

/** The same password typed on another keyboard may arrive in other code points (RFC 8265 §4.2). */
function normalised(password: string): string {
  return password.normalize("NFKC");
}
