import { afterAll, expect, test } from "bun:test";
import { createLogger } from "../../../src/lib/logger.ts";
import { createHints } from "../../../src/runtime/hints.ts";
import type { Pod } from "../../../src/runtime/kubernetes/api/objects.ts";
import { watchLingering } from "../../../src/runtime/kubernetes/watch/lingering.ts";
import { until } from "../../until.ts";

const REF = { environmentId: "e1", userId: "u1" };
const DELETED = "2026-01-01T00:00:00Z";
const RUNNING = { running: { startedAt: DELETED } };
const TERMINATED = { terminated: { exitCode: 0 } };
const WAITING = { waiting: { reason: "ContainerCreating" } };

function pod(uid: string, deletionTimestamp: string | undefined, ...states: object[]): Pod {
  return {
    metadata: { uid, name: uid, namespace: "n", ...(deletionTimestamp ? { deletionTimestamp } : {}) },
    spec: { containers: [] },
    status: {
      containerStatuses: states.map((state) => ({ name: "c", ready: false, restartCount: 0, state })),
    },
  };
}

/** What Kubernetes 1.20 says of a container that was removed before it was asked how it ended. */
function lost(uid: string): Pod {
  const terminated = { exitCode: 137, reason: "ContainerStatusUnknown" };
  const status = { name: "c", ready: false, restartCount: 0, state: WAITING, lastState: { terminated } };
  return { ...pod(uid, DELETED), status: { containerStatuses: [status] } };
}

const stop = new AbortController();
afterAll(() => stop.abort());

test("only a deleted pod of which nothing runs is taken off the books, once, and none but that very pod", async () => {
  let pods: Pod[] = [
    pod("running", undefined, RUNNING),
    pod("crashed", undefined, TERMINATED),
    pod("ending", DELETED, TERMINATED, RUNNING),
    pod("never-started", DELETED),
    pod("starting", DELETED, WAITING),
    pod("ended", DELETED, TERMINATED, TERMINATED),
  ];
  const deletions: unknown[] = [];
  const hints = createHints();
  watchLingering({
    client: { delete: async (path, options) => void deletions.push([path, options]) },
    mirror: { pods: () => pods },
    hints,
    log: createLogger({ format: "text", level: "error", write: () => {} }),
    signal: stop.signal,
    lastWordsMs: 0,
  });
  hints.tell(REF);
  hints.tell(REF);
  await until(() => deletions.length > 0);
  pods = [pod("later", DELETED, TERMINATED), lost("lost")];
  hints.tell(REF);
  await until(() => deletions.length > 2);
  expect(deletions).toEqual([
    ["/api/v1/namespaces/n/pods/ended", { graceSeconds: 0, uid: "ended" }],
    ["/api/v1/namespaces/n/pods/later", { graceSeconds: 0, uid: "later" }],
    ["/api/v1/namespaces/n/pods/lost", { graceSeconds: 0, uid: "lost" }],
  ]);
});
