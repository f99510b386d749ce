import { createBell } from "../../../lib/bell.ts";
import type { Hints } from "../../hints.ts";
import type { EnvironmentRef } from "../../runtime.ts";
import { type Mark, parseMark } from "../../startup.ts";
import type { Connection } from "../api/connection.ts";
import type { Pod } from "../api/objects.ts";
import { CONTAINER, startupNonce } from "../names.ts";
import { generationOfPod, type Progress } from "../observe.ts";
import { openPodLog } from "./podlog.ts";

/** Between two attempts at a log that can't be read yet: kubelet may not have it as soon as a container runs. */
const AGAIN_MS = 300;
const REMEMBERED = 500;

/**
 * How far the startup scripts of running containers are, read from their logs while somebody asks. All of
 * it can be read again: nothing here has to outlive the process.
 */
export interface ProgressTracker {
  /** What is known of a container; the first question starts the reading, a hint tells of each step. */
  of(pod: Pod, restartCount: number): Progress | undefined;
  close(): void;
}

export function createProgressTracker(
  connection: Connection,
  hints: Hints,
  refOfPod: (pod: Pod) => EnvironmentRef | undefined,
): ProgressTracker {
  const known = new Map<string, { progress?: Progress }>();
  const closed = new AbortController();

  async function follow(pod: Pod, ref: EnvironmentRef, entry: { progress?: Progress }): Promise<void> {
    const bell = createBell();
    const target = {
      namespace: pod.metadata.namespace ?? "",
      pod: pod.metadata.name ?? "",
      container: CONTAINER,
    };
    const nonce = startupNonce(ref.environmentId, generationOfPod(pod));
    const log = await openPodLog(connection, target, { wake: bell.ring });
    try {
      while (!closed.signal.aborted && !entry.progress?.done) {
        const line = log.take();
        if (line) {
          const mark = parseMark(line.text.trimEnd(), nonce);
          if (mark && applyMark(entry, mark)) hints.tell(ref);
        } else if (log.ended()) return;
        else await bell.wait(60_000, closed.signal);
      }
    } finally {
      log.close();
    }
  }

  async function read(pod: Pod, ref: EnvironmentRef, entry: { progress?: Progress }, key: string) {
    try {
      await follow(pod, ref, entry);
      if (entry.progress?.done) forgetOldest(known);
      else known.delete(key);
    } catch {
      await Bun.sleep(AGAIN_MS);
      known.delete(key);
      // Whoever still asks then begins anew: nothing else tells that it can be read.
      if (!closed.signal.aborted) hints.tell(ref);
    }
  }

  return {
    of(pod, restartCount) {
      const ref = refOfPod(pod);
      const key = `${pod.metadata.uid}/${restartCount}`;
      const found = known.get(key);
      if (found || !ref) return found?.progress;
      const entry: { progress?: Progress } = {};
      known.set(key, entry);
      void read(pod, ref, entry, key);
      return undefined;
    },
    close: () => closed.abort(),
  };
}

/** Between `done` and the probe that sees it, a container is asked about a few times more. */
function forgetOldest(known: Map<string, unknown>): void {
  for (const key of known.keys()) {
    if (known.size <= REMEMBERED) return;
    known.delete(key);
  }
}

/** Whether `mark` is news. */
export function applyMark(entry: { progress?: Progress }, mark: Mark): boolean {
  switch (mark.kind) {
    case "step": {
      const { step, steps, command } = mark;
      entry.progress = { step, steps, command, done: false };
      return true;
    }
    case "done":
      entry.progress = { step: mark.steps, steps: mark.steps, command: "", done: true };
      return true;
    case "retry":
    case "failed":
      return false;
  }
}
