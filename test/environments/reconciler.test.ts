import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { SYSTEM_ACTOR } from "../../src/audit/audit.ts";
import { inTransaction } from "../../src/db/open.ts";
import { environments } from "../../src/db/schema.ts";
import { type StatusChange, StatusFeed } from "../../src/environments/feed.ts";
import type { Verb } from "../../src/environments/lifecycle.ts";
import {
  createReconciler,
  type Reconciler,
  type ReconcilerOptions,
} from "../../src/environments/reconciler.ts";
import { environmentRows, messageOf, waitsForRestart } from "../../src/environments/rows.ts";
import { applyVerb } from "../../src/environments/verbs.ts";
import { createLogger } from "../../src/lib/logger.ts";
import {
  type Observed,
  type Problem,
  RuntimeRejected,
  RuntimeUnreachable,
} from "../../src/runtime/runtime.ts";
import { temporaryDatabase } from "../database.ts";
import { until } from "../until.ts";
import { DEADLINES, environment, owner } from "./setup.ts";
import { World } from "./world.ts";

let database: ReturnType<typeof temporaryDatabase>;
let reconciler: Reconciler;
beforeEach(() => {
  database = temporaryDatabase();
});
afterEach(async () => {
  await reconciler.stop(1000);
  database.remove();
});

function life(values: Parameters<typeof environment>[2] = {}) {
  const { db } = database;
  const clock = { at: 1_000_000 };
  const world = new World();
  const rows = environmentRows(db);
  const feed = new StatusFeed();
  const changes: StatusChange[] = [];
  const notes: string[] = [];
  /** Notes that can't be written the next time. */
  const unloggable = new Set<string>();
  const logged: string[] = [];
  feed.watchAll((change) => changes.push(change));
  const options: ReconcilerOptions = {
    db,
    rows,
    runtimeOf: () => world,
    deadlines: DEADLINES,
    feed,
    log: createLogger({ format: "text", level: "error", write: (line) => logged.push(line) }),
    now: () => clock.at,
    flushLogs: () => {},
    logSystem(_tx, _row, { message }) {
      if (unloggable.delete(message)) throw new Error("the disk is full");
      notes.push(message);
    },
    collectLogs: () => {},
    tornDown: () => notes.push("torn down"),
  };
  reconciler = createReconciler(options);
  // Nothing to look at yet: each test wakes it.
  reconciler.start();
  const created = {
    status: "creating",
    progress: 0,
    statusSince: clock.at,
    deadlineAt: clock.at + 600_000,
  } as const;
  const row = environment(db, owner(db), { ...created, ...values });
  const now = () => {
    const current = rows.byId(row.id);
    if (!current) throw new Error("the row is gone");
    return current;
  };
  return {
    options,
    world,
    clock,
    changes,
    notes,
    unloggable,
    logged,
    row,
    now,
    look: () => reconciler.wake(row.id),
    reaches: (status: string) =>
      until(
        () => {
          reconciler.wake(row.id);
          return now().status === status;
        },
        { message: () => `${now().status} instead of ${status}: ${now().statusMessage}` },
      ),
    verb: (verb: Verb) =>
      inTransaction(db, (tx) => {
        const at = { actor: SYSTEM_ACTOR, deadlines: DEADLINES, now: clock.at };
        return applyVerb(tx, now(), verb, at);
      }),
    sees: (observed: Observed) => world.observed.set(row.id, observed),
  };
}

const since = (sinceMs: number, kind: Problem["kind"], message: string): Problem => ({
  kind,
  message,
  sinceMs,
});

describe("an environment that is wanted running", () => {
  test("is provisioned and runs", async () => {
    const env = life();
    await env.reaches("running");
    expect(env.world.did).toEqual(["ensure 1"]);
    expect(env.changes.map(({ status }) => status)).toEqual(["provisioning", "running"]);
    expect(env.now()).toMatchObject({
      progress: 100,
      installationCompleted: true,
      deadlineAt: null,
      startedAt: 1,
    });
  });

  test("runs on while what somebody has changed around it is changed back, and its owner is told", async () => {
    const env = life();
    await env.reaches("running");
    env.world.did.length = 0;
    const message = "Somebody has scaled it to 2 in the cluster; it is changed back";
    env.world.refusal = new RuntimeUnreachable("connection refused");
    env.sees({
      phase: "running",
      generation: 1,
      startedAtMs: 1,
      problem: { kind: "altered", message, sinceMs: 1 },
    });
    env.look();
    await until(() => env.now().attempts === 1);
    expect(env.now()).toMatchObject({ status: "running", statusMessage: message });
    env.world.refusal = undefined;
    env.look();
    await until(() => env.world.did.length === 2);
    env.look();
    await until(() => env.now().statusMessage === null);
    expect(env.world.did).toEqual(["mend", "mend"]);
    expect(env.notes).toEqual(["Starting Shell", "The environment runs", message]);
  });

  test("is started again when it was stopped by hand, and its owner told why until it is seen to start", async () => {
    const env = life();
    await env.reaches("running");
    env.world.next = ({ generation }) => ({ phase: "running", generation, startedAtMs: 2 });
    env.sees({ phase: "stopped", lastGeneration: 1 });
    env.look();
    await until(() => env.now().startedAt === 2);
    const message = "Somebody has stopped it in the cluster; it is started again";
    const told = env.changes.filter((change) => change.message === message).map(({ status }) => status);
    expect(told).toEqual(["restarting", "provisioning"]);
    expect(env.notes).toContain(message);
    expect(env.now()).toMatchObject({ status: "running", statusMessage: null });
  });

  test("goes on by itself once its database can be written to again", async () => {
    const env = life();
    database.sqlite.run("PRAGMA query_only = ON");
    reconciler.wake(env.row.id);
    await until(() => env.logged.some((line) => line.includes("nothing can be written")));
    expect(env.now().status).toBe("creating");
    database.sqlite.run("PRAGMA query_only = OFF");
    await until(() => env.now().status === "provisioning");
  });

  test("enters a status together with what its log says of it, and who watches hears of both", async () => {
    const env = life();
    env.unloggable.add("The environment runs");
    await env.reaches("provisioning");
    await until(() => env.now().attempts === 1);
    expect(env.now().status).toBe("provisioning");
    await env.reaches("running");
    expect(env.notes).toEqual(["Starting Shell", "The environment runs"]);
    expect(env.changes.map(({ status }) => status)).toEqual(["provisioning", "running"]);
  });

  test("shows each step of its installation, and progress that never runs backwards", async () => {
    const env = life();
    env.world.next = ({ generation }) => ({ phase: "provisioning", generation, message: "Pulling image x" });
    await env.reaches("provisioning");
    await until(() => {
      env.look();
      return env.now().statusMessage === "Pulling image x";
    });
    const at = { generation: 1, startedAtMs: 5, steps: 2 };
    env.sees({ phase: "installing", step: 1, message: "Step 1 of 2: one", ...at });
    await env.reaches("installing");
    env.sees({ phase: "installing", step: 2, message: "Step 2 of 2: two", ...at });
    await until(() => {
      env.look();
      return env.now().statusMessage === "Step 2 of 2: two";
    });
    env.sees({ phase: "configuring", generation: 1, startedAtMs: 5 });
    await env.reaches("configuring");
    env.sees({ phase: "running", generation: 1, startedAtMs: 5 });
    await env.reaches("running");
    const progress = env.changes.map((change) => change.progress);
    expect(progress).toEqual(progress.toSorted((a, b) => a - b));
  });

  test("is started again when its containers are lost", async () => {
    const env = life();
    await env.reaches("running");
    env.sees({ phase: "stopped" });
    await until(() => {
      env.look();
      return env.world.did.length === 2;
    });
    await env.reaches("running");
    expect(env.changes.map(({ status }) => status)).toEqual([
      "provisioning",
      "running",
      "restarting",
      "provisioning",
      "running",
    ]);
  });

  test("is given again what somebody has deleted in the cluster", async () => {
    const env = life();
    await env.reaches("running");
    const message = 'secret "env-1" is missing in the cluster';
    const problem = since(env.clock.at, "missing", message);
    env.sees({ phase: "provisioning", generation: 1, message, problem });
    await env.reaches("provisioning");
    await env.reaches("running");
    expect(env.world.did).toEqual(["ensure 1", "ensure 1"]);
    expect(env.changes.map((change) => change.message)).toContain(message);
  });

  test("gets containers of its own generation", async () => {
    const env = life({ generation: 3 });
    env.sees({ phase: "running", generation: 2, startedAtMs: 1 });
    await env.reaches("running");
    expect(env.world.did).toEqual(["ensure 3"]);
  });

  test.each([
    ["image_pull", 60_000],
    ["unschedulable", 120_000],
  ] as const)(
    "ends in error when %s has stood for its deadline, and holds no processes then",
    async (kind, ms) => {
      const env = life();
      const problem = since(env.clock.at, kind, "in words");
      env.world.next = ({ generation }) => ({
        phase: "provisioning",
        generation,
        message: "Waiting",
        problem,
      });
      await env.reaches("provisioning");
      env.clock.at += ms - 1;
      await until(() => {
        env.look();
        return env.now().statusMessage === "in words";
      });
      expect(env.now().status).toBe("provisioning");
      env.clock.at += 1;
      await env.reaches("error");
      expect(env.now().statusMessage).toBe("in words");
      expect(env.notes).toContain("in words");
      await until(() => env.world.did.includes("stop"));
    },
  );

  test("ends in error when a command has failed, and recovers with its workspace", async () => {
    const env = life();
    const problem = since(
      env.clock.at,
      "command_failed",
      "Startup command 1 of 1 failed with exit code 2: false",
    );
    env.world.next = ({ generation }) => ({ phase: "failed", generation, problem });
    await env.reaches("error");
    expect(env.now().statusMessage).toContain("exit code 2");
    env.world.next = ({ generation }) => ({ phase: "running", generation, startedAtMs: 2 });
    env.verb("recover");
    await env.reaches("running");
    expect(env.world.did).not.toContain("remove");
    expect(env.now()).toMatchObject({ generation: 2, statusMessage: null });
  });

  test.each([
    ["with what it waited for", "Waiting for the volume", ": Waiting for the volume"],
    ["without a reason where none is known", "", ""],
  ])("ends in error when it is not provisioned within its deadline, %s", async (_how, message, reason) => {
    const env = life();
    env.world.next = ({ generation }) => ({ phase: "provisioning", generation, message });
    await env.reaches("provisioning");
    env.clock.at += DEADLINES.provisioningMs;
    await env.reaches("error");
    expect(env.now().statusMessage).toBe(`Gave up: provisioning took too long${reason}`);
  });

  test("waits for room while something of the same user is torn down, and for a moment when nothing is", async () => {
    const env = life();
    env.world.refusal = new RuntimeRejected("quota", "The namespace's quota is used up");
    const values = { status: "terminated", desired: "terminated", terminatedAt: 0 } as const;
    const ending = environment(database.db, env.row.userId, values);
    await until(() => {
      env.look();
      return env.world.did.length >= 3;
    });
    expect(env.now()).toMatchObject({
      status: "provisioning",
      statusMessage: "The namespace's quota is used up",
    });
    env.clock.at += 60_000;
    const tries = env.world.did.length;
    await until(() => {
      env.look();
      return env.world.did.length > tries;
    });
    expect(env.now().status).toBe("provisioning");
    database.db.run(`update environments set torn_down_at = 1 where id = '${ending.id}'`);
    await env.reaches("error");
  });

  test.each(["quota", "ending"] as const)("gets on when %s has passed by itself", async (kind) => {
    const env = life();
    env.world.refusal = new RuntimeRejected(kind, "in words");
    await until(() => {
      env.look();
      return env.now().statusMessage === "in words";
    });
    env.clock.at += 29_000;
    env.world.refusal = undefined;
    await env.reaches("running");
  });
});

describe("a cluster that can't be reached", () => {
  test("changes no status, says so, and its time does not count against deadlines", async () => {
    const env = life();
    env.world.next = ({ generation }) => ({ phase: "provisioning", generation, message: "Waiting" });
    await env.reaches("provisioning");
    env.world.reachable = false;
    await until(() => {
      env.look();
      return env.now().unreachableSince !== null;
    });
    expect(messageOf(env.now())).toStartWith("The cluster can't be reached");
    env.clock.at += 10 * DEADLINES.provisioningMs;
    await until(() => {
      env.look();
      return env.now().attempts > 3;
    });
    expect(env.now().status).toBe("provisioning");
    env.world.reachable = true;
    await until(() => {
      env.look();
      return env.now().unreachableSince === null;
    });
    expect(messageOf(env.now())).toBe("Waiting");
    expect(env.now().status).toBe("provisioning");
    env.clock.at += DEADLINES.provisioningMs;
    await env.reaches("error");
  });

  test.each([
    ["running", null, ["The cluster can't be reached; the environment goes on when it is back", null]],
    ["error", "image nosuch:1 cannot be pulled", Array(2).fill("image nosuch:1 cannot be pulled")],
  ] as const)(
    "takes from %s no reason, and who watches hears of its beginning and end",
    async (status, reason, told) => {
      const env = life({ status, statusMessage: reason, deadlineAt: null });
      env.sees({ phase: "running", generation: 1, startedAtMs: 1 });
      env.world.reachable = false;
      env.look();
      await until(() => env.now().unreachableSince !== null);
      env.world.reachable = true;
      env.look();
      await until(() => env.now().unreachableSince === null);
      expect(env.now().statusMessage).toBe(reason);
      expect(env.changes.map(({ message }) => message)).toEqual([...told]);
    },
  );

  test("leaves a verb that comes while it answers again its own deadline and reason", async () => {
    const env = life({ status: "running", deadlineAt: null, unreachableSince: 500_000 });
    env.sees({ phase: "running", generation: 1, startedAtMs: 1 });
    const answer = Promise.withResolvers<void>();
    env.world.held = answer.promise;
    env.world.stop = async () => {};
    env.look();
    await until(() => env.world.looks === 1);
    const stopping = env.verb("stop");
    answer.resolve();
    await until(() => env.world.looks === 2);
    expect(env.now()).toMatchObject({ status: "stopping", deadlineAt: stopping.deadlineAt });
    env.clock.at += DEADLINES.stoppingMs;
    await env.reaches("error");
  });

  test("keeps nothing of another cluster waiting, however much lives on it", async () => {
    const env = life();
    const hanging = new World();
    const answer = Promise.withResolvers<void>();
    hanging.held = answer.promise;
    env.options.runtimeOf = (clusterId) => (clusterId === env.row.clusterId ? env.world : hanging);
    for (let n = 0; n < 50; n++) {
      const { id } = environment(database.db, env.row.userId, { clusterId: "hanging" });
      reconciler.wake(id);
    }
    await env.reaches("running");
    expect(hanging.looks).toBe(16);
    expect(reconciler.depth).toBeGreaterThanOrEqual(50);
    answer.resolve();
  });

  test("does not keep an environment from being deleted, nor the teardown from going on afterwards", async () => {
    const env = life();
    await env.reaches("running");
    env.world.reachable = false;
    env.verb("delete");
    await until(() => {
      env.look();
      return env.now().attempts > 1;
    });
    expect(env.now()).toMatchObject({ status: "terminated", tornDownAt: null });
    env.world.reachable = true;
    await until(() => {
      env.look();
      return env.now().tornDownAt !== null;
    });
    expect(env.world.did.at(-1)).toBe("remove");
    expect(env.notes.at(-1)).toBe("torn down");
  });
});

describe("an edit of what containers are made with", () => {
  const edited = { variables: { EDITED: "yes" }, restartRequired: true };

  test.each([
    ["before they are made", {}, true],
    ["while they run", { status: "running", deadlineAt: null }, false],
  ] as const)("%s is applied once a runtime was told of it", async (_, values, applied) => {
    const env = life({ ...edited, ...values });
    if (!applied) {
      // They are started again where they are: nobody asks the runtime to.
      env.sees({ phase: "provisioning", generation: 1, message: "Starting the container again" });
      await env.reaches("provisioning");
      env.sees({ phase: "running", generation: 1, startedAtMs: 2 });
    }
    await env.reaches("running");
    expect(env.world.did).toEqual(applied ? ["ensure 1"] : []);
    expect(env.now()).toMatchObject({
      restartRequired: !applied,
      appliedResources: applied ? env.row.resources : null,
    });
    env.verb("restart");
    expect(env.now().restartRequired).toBe(!applied);
    await env.reaches("running");
    expect(env.now()).toMatchObject({ restartRequired: false, appliedResources: env.row.resources });
  });

  test("waits for the next start when it comes while they are being made", async () => {
    const env = life();
    env.world.next = ({ generation }) => {
      database.db.update(environments).set(edited).run();
      return { phase: "running", generation, startedAtMs: 1 };
    };
    await env.reaches("running");
    expect(env.now()).toMatchObject({ restartRequired: true, appliedResources: env.row.resources });
  });

  test("waits too when it is of resources, until they are as applied", async () => {
    const env = life();
    env.world.next = ({ generation }) => {
      const resources = { ...env.row.resources, cpu: "750m" };
      database.db.update(environments).set({ resources, restartRequired: true }).run();
      return { phase: "running", generation, startedAtMs: 1 };
    };
    await env.reaches("running");
    expect(waitsForRestart(env.now())).toBe(true);
    expect(waitsForRestart({ ...env.now(), resources: env.row.resources })).toBe(false);
  });
});

describe("a cluster that answers and does not do what it is told", () => {
  test("is asked less and less often, until the deadline ends it with what the cluster said", async () => {
    const env = life();
    env.world.refusal = new RuntimeUnreachable("The cluster can't do that now: a webhook fails");
    env.look();
    await until(() => env.now().attempts >= 3);
    expect(env.now()).toMatchObject({
      status: "provisioning",
      statusMessage: "The cluster can't do that now: a webhook fails",
      unreachableSince: null,
      deadlineAt: 1_600_000,
    });
    expect(env.world.did).toHaveLength(env.now().attempts);
    env.clock.at = 1_600_000;
    await env.reaches("error");
    expect(env.now().statusMessage).toBe(
      "Gave up: provisioning took too long: The cluster can't do that now: a webhook fails",
    );
  });

  test("counts as failed until a whole step has succeeded", async () => {
    const env = life({ status: "provisioning", unreachableSince: 999_000, attempts: 5 });
    env.world.refusal = new RuntimeUnreachable("a webhook fails");
    env.look();
    await until(() => env.now().attempts === 6);
    env.world.refusal = undefined;
    await env.reaches("running");
    expect(env.now().attempts).toBe(0);
  });

  test("does not take the reason away for which it is to stop", async () => {
    const env = life({ status: "stopping", desired: "stopped", statusMessage: "Stopped after 2 hours" });
    env.sees({ phase: "running", generation: 1, startedAtMs: 1 });
    env.world.stop = async () => {
      throw new RuntimeUnreachable("a webhook fails");
    };
    env.look();
    await until(() => env.now().attempts === 2);
    env.sees({ phase: "stopped" });
    await env.reaches("stopped");
    expect(env.now().statusMessage).toBe("Stopped after 2 hours");
  });
});

test("stopping ends in error when it takes too long, and can be deleted from there", async () => {
  const env = life();
  await env.reaches("running");
  env.world.stop = async () => {};
  env.verb("stop");
  env.look();
  env.clock.at += DEADLINES.stoppingMs;
  await env.reaches("error");
  env.verb("delete");
  await until(() => {
    env.look();
    return env.now().tornDownAt !== null;
  });
});

test("a server that is started looks at everything that is unfinished, and nothing else", async () => {
  const env = life({ status: "stopping", desired: "stopped", generation: 2 });
  const resting = environment(database.db, env.row.userId, { status: "stopped", desired: "stopped" });
  env.sees({ phase: "running", generation: 1, startedAtMs: 1 });
  env.world.observed.set(resting.id, { phase: "running", generation: 1, startedAtMs: 1 });
  await reconciler.stop(1000);
  const rows = environmentRows(database.db);
  expect(rows.unfinished()).toEqual([env.row.id]);
  const second = createReconciler(env.options);
  second.start();
  await until(() => env.now().status === "stopped");
  await second.stop(1000);
  expect(env.world.did).toEqual(["stop"]);
  expect(env.world.observed.get(resting.id)?.phase).toBe("running");
});

describe("a server that was off longer than something may take", () => {
  /** What another server makes of it, one that starts `offMs` after the row was written. */
  async function startsLater(env: ReturnType<typeof life>, offMs: number): Promise<Reconciler> {
    await reconciler.stop(1000);
    env.clock.at += offMs;
    const next = createReconciler(env.options);
    next.start();
    return next;
  }

  test.each(["creating", "provisioning", "installing", "configuring", "restarting"] as const)(
    "gives what was %s its time again",
    async (status) => {
      const env = life({ status });
      const second = await startsLater(env, 2 * DEADLINES.installingMs);
      await until(() => {
        second.wake(env.row.id);
        return env.now().status === "running" || env.now().status === "error";
      });
      expect(env.now()).toMatchObject({ status: "running", statusMessage: null });
      await second.stop(1000);
    },
  );

  test("gives what was stopping its time again, and then no more than that", async () => {
    const env = life({ status: "stopping", desired: "stopped" });
    env.sees({ phase: "running", generation: 1, startedAtMs: 1 });
    env.world.stop = async () => {};
    const second = await startsLater(env, 2 * DEADLINES.installingMs);
    await until(() => env.world.looks > 0);
    expect(env.now()).toMatchObject({
      status: "stopping",
      deadlineAt: env.clock.at + DEADLINES.stoppingMs,
    });
    env.clock.at += DEADLINES.stoppingMs;
    await until(() => {
      second.wake(env.row.id);
      return env.now().status === "error";
    });
    await second.stop(1000);
  });

  test("leaves what waits for its cluster the time that it had left", async () => {
    const env = life({ status: "installing", unreachableSince: 1_000_000 });
    env.sees({ phase: "installing", generation: 1, startedAtMs: 1, step: 1, steps: 2, message: "" });
    const offMs = 2 * DEADLINES.installingMs;
    const second = await startsLater(env, offMs);
    await until(() => env.now().unreachableSince === null);
    expect(env.now()).toMatchObject({ status: "installing", deadlineAt: 1_000_000 + 600_000 + offMs });
    await second.stop(1000);
  });
});
