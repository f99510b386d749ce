import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import {
  DESIRED_STATES,
  type DesiredState,
  ENVIRONMENT_STATUSES,
  type EnvironmentStatus,
} from "../../src/db/schema.ts";
import {
  deadlineMs,
  isSettled,
  LIFECYCLE,
  nextStep,
  type Situation,
  type Step,
  statusesAllowing,
  VERBS,
  type Verb,
} from "../../src/environments/lifecycle.ts";
import { type Observed, PROBLEM_KINDS, type Problem } from "../../src/runtime/runtime.ts";

const NOW = 1_000_000;
const DEADLINES = {
  provisioningMs: 600_000,
  imagePullMs: 60_000,
  unschedulableMs: 120_000,
  installingMs: 1_200_000,
  stoppingMs: 120_000,
};
const GENERATION = 7;
const VERB_NAMES = Object.keys(VERBS) as Verb[];

/** The statuses that an environment with this intent can be in: by the verbs' first ones and what those lead to. */
function statusesWith(desired: DesiredState): EnvironmentStatus[] {
  const found = new Set<EnvironmentStatus>();
  const visit = (status: EnvironmentStatus) => {
    if (found.has(status)) return;
    found.add(status);
    for (const next of LIFECYCLE[status].leads) visit(next);
  };
  for (const { verbs } of Object.values(LIFECYCLE)) {
    for (const verb of VERB_NAMES) {
      const entered = verbs[verb];
      if (entered && VERBS[verb].desired === desired) visit(entered);
    }
  }
  return [...found];
}

/** Every answer that a runtime can give, of this generation and of another, with every problem new and old. */
function observations(): Observed[] {
  const problems: Problem[] = PROBLEM_KINDS.flatMap((kind) =>
    [NOW, NOW - 10_000_000].map((sinceMs) => ({ kind, message: `because of ${kind}`, sinceMs })),
  );
  const ofGeneration = (generation: number): Observed[] => [
    { phase: "provisioning", generation, message: "Pulling image" },
    ...problems.map((problem): Observed => ({ phase: "provisioning", generation, message: "", problem })),
    { phase: "installing", generation, step: 1, steps: 3, message: "Step 1 of 3", startedAtMs: NOW },
    { phase: "installing", generation, step: 0, steps: 0, message: "", startedAtMs: NOW },
    { phase: "configuring", generation, startedAtMs: NOW },
    { phase: "running", generation, startedAtMs: NOW },
    { phase: "stopped", lastGeneration: generation },
    { phase: "stopping", lastGeneration: generation },
    ...(["missing", "altered"] as const).flatMap((kind): Observed[] => {
      const problem = { kind, message: `because of ${kind}`, sinceMs: NOW };
      return [
        { phase: "installing", generation, step: 1, steps: 3, message: "", startedAtMs: NOW, problem },
        { phase: "configuring", generation, startedAtMs: NOW, problem },
        { phase: "running", generation, startedAtMs: NOW, problem },
      ];
    }),
    ...problems.map((problem): Observed => ({ phase: "failed", generation, problem })),
  ];
  return [
    { phase: "absent" },
    { phase: "stopped" },
    { phase: "stopping" },
    ...ofGeneration(GENERATION),
    ...ofGeneration(GENERATION - 1),
  ];
}

/** Every combination of intent, status it can have, observation, deadline and peers. */
function* combinations(): Generator<{ at: Situation; observed: Observed; step: Step }> {
  for (const desired of DESIRED_STATES) {
    for (const status of statusesWith(desired)) {
      const passing = !isSettled(status);
      for (const deadlineAt of passing ? [NOW + 1, NOW] : [null]) {
        for (const peersEnding of [false, true]) {
          for (const tornDownAt of status === "terminated" ? [null, NOW] : [null]) {
            const at = {
              status,
              desired,
              generation: GENERATION,
              deadlineAt,
              tornDownAt,
              statusMessage: null,
              peersEnding,
            };
            for (const observed of observations()) {
              yield { at, observed, step: nextStep(at, observed, NOW, DEADLINES) };
            }
          }
        }
      }
    }
  }
}

function every(rule: (combination: { at: Situation; observed: Observed; step: Step }) => boolean): void {
  const broken = [...combinations()].filter((combination) => !rule(combination));
  expect(broken.slice(0, 3)).toEqual([]);
}

describe("in every combination of intent, status and observation", () => {
  test("there are as many as one would think", () => {
    expect([...combinations()].length).toBeGreaterThan(1500);
  });

  test("only transitions of the table are made", () => {
    every(({ at, step }) => {
      const to = step.become?.status;
      return to === undefined || to === at.status || LIFECYCLE[at.status].leads.includes(to);
    });
  });

  test("every status of the table is one that an intent can have, and every way of the table is taken", () => {
    expect(new Set(DESIRED_STATES.flatMap(statusesWith))).toEqual(new Set(ENVIRONMENT_STATUSES));
    const taken = new Set([...combinations()].map(({ at, step }) => `${at.status} → ${step.become?.status}`));
    const ways = ENVIRONMENT_STATUSES.flatMap((from) => LIFECYCLE[from].leads.map((to) => `${from} → ${to}`));
    expect(ways.filter((way) => !taken.has(way))).toEqual([]);
  });

  test("the runtime is asked for nothing but what serves the intent", () => {
    every(({ at, step }) => {
      const status = step.become?.status ?? at.status;
      const allowed =
        at.desired === "terminated"
          ? "remove"
          : at.desired === "stopped" || status === "error"
            ? "stop"
            : "ensure";
      return step.act === undefined || step.act === allowed || (step.act === "mend" && allowed === "ensure");
    });
  });

  test("whatever passes is looked at again, or has come to an end", () => {
    every(({ at, step }) => {
      const status = step.become?.status ?? at.status;
      return isSettled(status) || step.lookAgainMs !== undefined;
    });
  });

  test("what is asked of the runtime is looked at again", () => {
    every(({ step }) => step.act === undefined || step.lookAgainMs !== undefined);
  });

  test("a deadline that has passed ends what it was for", () => {
    every(({ at, step }) => {
      if (at.deadlineAt === null || at.deadlineAt > NOW) return true;
      return step.become !== undefined && isSettled(step.become.status);
    });
  });

  test("an error says why, in words, and holds no processes", () => {
    every(
      ({ step }) => step.become?.status !== "error" || (Boolean(step.become.message) && step.act === "stop"),
    );
  });

  test("running is claimed only of the containers of this generation that run", () => {
    every(
      ({ step, observed }) =>
        step.become?.status !== "running" ||
        (observed.phase === "running" && observed.generation === GENERATION),
    );
  });

  test("stopped and torn down are claimed only when nothing runs, and when nothing is left", () => {
    every(({ step, observed }) => {
      const gone = observed.phase === "absent";
      if (step.tornDown && !gone) return false;
      return step.become?.status !== "stopped" || gone || observed.phase === "stopped";
    });
  });

  test("progress is a percentage, and whole", () => {
    every(({ step }) => {
      const progress = step.become?.progress ?? 0;
      return Number.isInteger(progress) && progress >= 0 && progress <= 100;
    });
  });

  test("what is missing or has no room is asked for again, after a pause", () => {
    every(({ observed, step }) => {
      if (observed.phase !== "provisioning" || step.become?.status !== "provisioning") return true;
      if (observed.generation !== GENERATION) return true;
      const asks = ["quota", "ending", "missing", "altered"].includes(observed.problem?.kind ?? "");
      return asks ? step.act === "ensure" && (step.lookAgainMs ?? 0) >= 3000 : step.act === undefined;
    });
  });

  test("what is changed around containers is mended, and they are left alone", () => {
    every(({ at, observed, step }) => {
      const wanted = at.desired === "running" && at.status !== "error";
      const isOurs = "generation" in observed && observed.generation === GENERATION;
      const begun = ["installing", "configuring", "running"].includes(observed.phase);
      const wrong = "problem" in observed && wanted && isOurs && begun && step.become?.status !== "error";
      // It is restarting first.
      const isGone = at.status === "running" && observed.phase !== "running";
      return (step.act === "mend") === (wrong && !isGone);
    });
  });

  test("an owner is told when it was stopped by hand, and not when DevPocket has stopped it", () => {
    every(({ at, observed, step }) => {
      const stopped = observed.phase === "stopped" || observed.phase === "stopping";
      const byHand = stopped && observed.lastGeneration === GENERATION;
      const wanted = at.desired === "running" && at.status !== "error" && step.become?.status !== "error";
      return Boolean(step.become?.message?.startsWith("Somebody has stopped it")) === (byHand && wanted);
    });
  });

  test("a problem that may pass is waited for only while it may", () => {
    const waits = (kind: Problem["kind"], sinceMs: number, peersEnding: boolean) => {
      const at: Situation = {
        status: "provisioning",
        desired: "running",
        generation: GENERATION,
        deadlineAt: NOW + 1,
        tornDownAt: null,
        statusMessage: null,
        peersEnding,
      };
      const problem = { kind, message: "because", sinceMs };
      const observed: Observed = { phase: "provisioning", generation: GENERATION, message: "", problem };
      return nextStep(at, observed, NOW, DEADLINES).become?.status !== "error";
    };
    expect(waits("image_pull", NOW - 59_999, false)).toBeTrue();
    expect(waits("image_pull", NOW - 60_000, false)).toBeFalse();
    expect(waits("unschedulable", NOW - 119_999, false)).toBeTrue();
    expect(waits("unschedulable", NOW - 120_000, false)).toBeFalse();
    for (const kind of ["quota", "ending"] as const) {
      expect(waits(kind, NOW - 29_999, false)).toBeTrue();
      expect(waits(kind, NOW - 30_000, false)).toBeFalse();
      expect(waits(kind, NOW - 30_000, true)).toBeTrue();
    }
    expect(waits("missing", 0, false)).toBeTrue();
    expect(waits("command_failed", NOW, true)).toBeFalse();
  });
});

describe("the table", () => {
  test("gives every status that passes a deadline, and no other", () => {
    for (const status of ENVIRONMENT_STATUSES) {
      expect(deadlineMs(status, DEADLINES) !== null).toBe(!isSettled(status));
    }
  });

  test("lets every environment be deleted, and nothing be done to one that is", () => {
    expect(statusesAllowing("delete")).toEqual(
      ENVIRONMENT_STATUSES.filter((status) => status !== "terminated"),
    );
    expect(LIFECYCLE.terminated).toEqual({ kind: "settled", verbs: {}, leads: [] });
  });

  test.each<[Verb, EnvironmentStatus[]]>([
    ["start", ["stopped"]],
    ["stop", ["running"]],
    ["restart", ["running", "stopped", "error"]],
    ["recover", ["error"]],
  ])("allows %s from %p", (verb, statuses) => {
    expect(new Set(statusesAllowing(verb))).toEqual(new Set(statuses));
  });
});

/** A runtime that does what it is told, one phase a look, unless something happens to it. */
class World {
  observed: Observed;
  generation: number;

  constructor(observed: Observed, generation: number) {
    this.observed = observed;
    this.generation = generation;
  }

  act(what: NonNullable<Step["act"]>): void {
    if (what === "mend") {
      if ("problem" in this.observed && this.observed.phase !== "failed") delete this.observed.problem;
    } else if (what === "ensure") {
      const current = "generation" in this.observed && this.observed.generation === this.generation;
      if (!current) this.observed = { phase: "provisioning", generation: this.generation, message: "" };
    } else if (what === "remove") {
      this.observed = this.observed.phase === "stopping" ? { phase: "absent" } : { phase: "stopping" };
    } else if (this.observed.phase !== "absent" && this.observed.phase !== "stopped") {
      this.observed = this.observed.phase === "stopping" ? { phase: "stopped" } : { phase: "stopping" };
    }
  }

  /** Gets on by itself, as far as it can. */
  tick(now: number): void {
    const { observed } = this;
    if (observed.phase === "provisioning") {
      const { generation } = observed;
      this.observed = { phase: "installing", generation, step: 1, steps: 1, message: "", startedAtMs: now };
    } else if (observed.phase === "installing") {
      this.observed = { phase: "configuring", generation: observed.generation, startedAtMs: now };
    } else if (observed.phase === "configuring") {
      this.observed = { phase: "running", generation: observed.generation, startedAtMs: now };
    }
  }
}

/** An environment as the reconciler drives it. */
class Life {
  at: Situation = {
    status: "creating",
    desired: "running",
    generation: 1,
    deadlineAt: NOW + 600_000,
    tornDownAt: null,
    statusMessage: null,
    peersEnding: false,
  };
  readonly world = new World({ phase: "absent" }, 1);
  now = NOW;

  enter(status: EnvironmentStatus): void {
    if (status === this.at.status) return;
    const limit = deadlineMs(status, DEADLINES);
    this.at = { ...this.at, status, deadlineAt: limit === null ? null : this.now + limit };
  }

  verb(verb: Verb): boolean {
    const entered = LIFECYCLE[this.at.status].verbs[verb];
    if (!entered) return false;
    this.enter(entered);
    this.at = { ...this.at, desired: VERBS[verb].desired, generation: this.at.generation + 1 };
    this.world.generation = this.at.generation;
    return true;
  }

  look(): Step {
    const step = nextStep(this.at, this.world.observed, this.now, DEADLINES);
    if (step.become) {
      const { status } = step.become;
      const allowed = status === this.at.status || LIFECYCLE[this.at.status].leads.includes(status);
      if (!allowed) throw new Error(`${this.at.status} became ${status}`);
      this.enter(status);
    }
    if (step.tornDown) this.at = { ...this.at, tornDownAt: this.now };
    if (step.act) this.world.act(step.act);
    this.now += 2000;
    return step;
  }

  /** Looks while there is something to look for. */
  settle(): void {
    for (let looks = 0; looks < 50; looks++) {
      const step = this.look();
      if (Object.keys(step).length === 0) return;
      this.world.tick(this.now);
    }
    throw new Error(`${this.at.status} does not come to rest`);
  }

  isAsWanted(): boolean {
    const { phase } = this.world.observed;
    if (this.at.status !== this.at.desired) return false;
    switch (this.at.desired) {
      case "running":
        return phase === "running";
      case "stopped":
        return phase === "stopped" || phase === "absent";
      case "terminated":
        return phase === "absent" && this.at.tornDownAt !== null;
    }
  }
}

/** The shortest sequence of verbs by which an owner comes from a settled status to what is wanted. */
const WAYS: Record<"running" | "stopped" | "error", Record<DesiredState, Verb[]>> = {
  running: { running: [], stopped: ["stop"], terminated: ["delete"] },
  stopped: { running: ["start"], stopped: [], terminated: ["delete"] },
  error: { running: ["recover"], stopped: ["recover", "stop"], terminated: ["delete"] },
};

const happening = fc.oneof(
  fc.record({ what: fc.constant("verb" as const), verb: fc.constantFrom(...VERB_NAMES) }),
  fc.record({ what: fc.constant("look" as const) }),
  fc.record({ what: fc.constant("tick" as const) }),
  fc.record({ what: fc.constant("time" as const), ms: fc.integer({ min: 0, max: 2_000_000 }) }),
  fc.record({ what: fc.constant("world" as const), observed: fc.constantFrom(...observations()) }),
);

describe("from whatever has happened", () => {
  test.each([...DESIRED_STATES])("an environment comes to be %s when its owner wants it", (wanted) => {
    fc.assert(
      fc.property(fc.array(happening, { maxLength: 40 }), (history) => {
        const life = new Life();
        for (const event of history) {
          if (event.what === "verb") life.verb(event.verb);
          else if (event.what === "look") life.look();
          else if (event.what === "tick") life.world.tick(life.now);
          else if (event.what === "time") life.now += event.ms;
          // What turns up after the teardown is the sweep's.
          else if (life.at.tornDownAt === null) life.world.observed = event.observed;
        }
        life.settle();
        const { status } = life.at;
        if (status === "terminated") {
          expect(life.isAsWanted()).toBeTrue();
          return;
        }
        if (status !== "running" && status !== "stopped" && status !== "error") {
          throw new Error(`${status} is not settled`);
        }
        for (const verb of WAYS[status][wanted]) {
          expect(life.verb(verb)).toBeTrue();
          life.settle();
        }
        expect(life.at.status).toBe(wanted);
        expect(life.isAsWanted()).toBeTrue();
      }),
      { numRuns: 1000 },
    );
  });

  test("an environment comes to be what was wanted last", () => {
    fc.assert(
      fc.property(fc.array(fc.constantFrom(...VERB_NAMES), { maxLength: 12 }), (verbs) => {
        const life = new Life();
        for (const verb of verbs) {
          life.verb(verb);
          life.settle();
        }
        life.settle();
        expect(life.isAsWanted()).toBeTrue();
      }),
    );
  });
});
