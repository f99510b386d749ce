import {
  type EnvironmentRef,
  type EnvironmentSpec,
  type Observed,
  type Remains,
  type Runtime,
  type RuntimeRejected,
  RuntimeUnreachable,
  type Usage,
} from "../../src/runtime/runtime.ts";

/**
 * A runtime whose world the test writes. What the reconciler does on real ones is tested end to end; this
 * one can be unreachable, refuse, and hold still at any point.
 */
export class World implements Runtime {
  readonly observed = new Map<string, Observed>();
  readonly did: string[] = [];
  /** How often it was observed. */
  looks = 0;
  reachable = true;
  /** What `ensure` throws. */
  refusal: RuntimeRejected | RuntimeUnreachable | undefined;
  /** What `observe` waits for before it answers. */
  held: Promise<void> | undefined;
  used: Usage | null = null;
  /** What `ensure` brings about. */
  next: (spec: EnvironmentSpec) => Observed = (spec) => ({
    phase: "running",
    generation: spec.generation,
    startedAtMs: 1,
  });

  async observe({ environmentId }: EnvironmentRef): Promise<Observed> {
    if (!this.reachable) throw new RuntimeUnreachable("connection refused");
    this.looks++;
    await this.held;
    return this.observed.get(environmentId) ?? { phase: "absent" };
  }
  async ensure(spec: EnvironmentSpec): Promise<void> {
    this.did.push(`ensure ${spec.generation}`);
    if (this.refusal) throw this.refusal;
    this.observed.set(spec.environmentId, this.next(spec));
  }
  async mend({ environmentId }: EnvironmentSpec): Promise<void> {
    this.did.push("mend");
    if (this.refusal) throw this.refusal;
    const observed = this.observed.get(environmentId);
    if (observed?.phase === "running") delete observed.problem;
  }
  async stop({ environmentId }: EnvironmentRef): Promise<void> {
    this.did.push("stop");
    this.observed.set(environmentId, { phase: "stopped" });
  }
  async remove({ environmentId }: EnvironmentRef): Promise<void> {
    this.did.push("remove");
    this.observed.set(environmentId, { phase: "absent" });
  }
  async *changes(): AsyncIterable<EnvironmentRef> {}
  async openTerminal(): Promise<never> {
    throw new RuntimeUnreachable("not here");
  }
  async *logs(_ref: EnvironmentRef, _options: { signal: AbortSignal }): AsyncIterable<never> {}
  async usage(_ref: EnvironmentRef): Promise<Usage | null> {
    return this.used;
  }
  async capacity(): Promise<never> {
    throw new RuntimeUnreachable("not here");
  }
  async list(): Promise<Remains[]> {
    return [];
  }
  async close(): Promise<void> {}
}
