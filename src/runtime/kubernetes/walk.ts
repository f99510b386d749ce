import type { Semaphore } from "../../lib/semaphore.ts";
import { EXTEND_PATH } from "../startup.ts";
import type { Connection } from "./api/connection.ts";
import { type ExecTarget, runCommand } from "./api/exec.ts";
import { WORKSPACE } from "./manifests/manifests.ts";

/** Walking a workspace's files is work for the node: not more often than this, nor for more than a tenth of the time. */
const FRESH_MS = 60_000;
const SPARED_FACTOR = 10;
/** The walk is ended in the container, where there is `timeout`: nothing else would end it there. */
const LIMIT_SECONDS = 60;
/** For its answer to come. */
const ANSWER_MS = 10_000;
/** A walk that takes longer is for the next who asks. */
const PATIENCE_MS = 1_000;

const WALK = `${EXTEND_PATH}
command -v timeout >/dev/null 2>&1 && set -- timeout ${LIMIT_SECONDS}
exec "$@" du -skx ${WORKSPACE} 2>/dev/null`;

/** What a workspace's files take where its filesystem does not tell: they are walked, one walk at a time. */
export class Walk {
  #bytes: number | null = null;
  #running: Promise<void> | null = null;
  #nextAtMs = Number.NEGATIVE_INFINITY;

  /**
   * As it was found last; null: not known as yet.
   *
   * @param turns how many walks there may be in the cluster
   */
  async bytes(
    connection: Connection,
    target: ExecTarget,
    { turns, now }: { turns: Semaphore; now(): number },
  ): Promise<number | null> {
    if (!this.#running && now() >= this.#nextAtMs) {
      this.#running = turns.run(() => this.#walk(connection, target, now));
    }
    if (this.#running) await Promise.race([this.#running, Bun.sleep(PATIENCE_MS)]);
    return this.#bytes;
  }

  async #walk(connection: Connection, target: ExecTarget, now: () => number): Promise<void> {
    const begunAtMs = now();
    try {
      const command = ["/bin/sh", "-c", WALK, "sh"];
      const timeoutMs = LIMIT_SECONDS * 1000 + ANSWER_MS;
      const { stdout } = await runCommand(connection, target, command, { timeoutMs });
      this.#bytes = parseWalk(stdout) ?? this.#bytes;
    } catch {
      // The container has ended, or the cluster can't be reached: whoever reads it learns of that.
    }
    this.#nextAtMs = now() + Math.max(FRESH_MS, SPARED_FACTOR * (now() - begunAtMs));
    this.#running = null;
  }
}

/** The sum in what `du -sk` prints; null when it was ended before. */
export function parseWalk(text: string): number | null {
  const kibibytes = /^(\d+)\s/.exec(text)?.[1];
  return kibibytes === undefined ? null : Number(kibibytes) * 1024;
}
