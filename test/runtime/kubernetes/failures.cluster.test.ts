import { afterAll, expect, test } from "bun:test";
import {
  type EnvironmentSpec,
  type LogLine,
  type Problem,
  RuntimeRejected,
} from "../../../src/runtime/runtime.ts";
import { onCluster } from "../../on-cluster.ts";
import { until } from "../../until.ts";
import { type Cluster, openCluster, untilPhase } from "./cluster.ts";

const MIB = 2 ** 20;
const GIB = 2 ** 30;
const TIMEOUT_MS = 150_000;

onCluster("what goes wrong is told in words:", () => {
  const cluster: Cluster = openCluster();
  const { runtime } = cluster;
  afterAll(() => cluster.close(), TIMEOUT_MS);

  async function begun(change: Partial<EnvironmentSpec>): Promise<EnvironmentSpec> {
    const spec = cluster.spec(change);
    await runtime.ensure(spec);
    return spec;
  }

  /** A pod may first wait for its volume: the problem that is meant comes after it. */
  async function untilProblem(spec: EnvironmentSpec, kind: Problem["kind"]) {
    return until(
      async () => {
        const observed = await runtime.observe(spec);
        return observed.phase === "provisioning" && observed.problem?.kind === kind && observed.problem;
      },
      { timeoutMs: 60_000, intervalMs: 200, message: () => "no problem came up" },
    );
  }

  async function log(spec: EnvironmentSpec, wanted: RegExp): Promise<LogLine[]> {
    const lines: LogLine[] = [];
    const signal = AbortSignal.timeout(20_000);
    for await (const line of runtime.logs(spec, { after: null, signal })) {
      lines.push(line);
      if (wanted.test(line.message)) return lines;
    }
    throw new Error(`no line like ${wanted} among ${JSON.stringify(lines.map(({ message }) => message))}`);
  }

  test.concurrent(
    "an image that is not there, since the same time whenever one asks",
    async () => {
      const spec = await begun({ image: "nosuch:1" });
      const problem = await untilProblem(spec, "image_pull");
      expect(problem).toMatchObject({
        kind: "image_pull",
        message: expect.stringMatching(/^image nosuch:1 cannot be pulled: \S/),
      });
      const again = await untilProblem(spec, "image_pull");
      expect(again.sinceMs).toBe(problem.sinceMs);
      await log(spec, /^Failed: Failed to pull image "nosuch:1"/);
    },
    TIMEOUT_MS,
  );

  test.concurrent(
    "more memory than any node has",
    async () => {
      const spec = await begun({ resources: { cpuMillis: 500, memoryBytes: 4000 * GIB, storageBytes: GIB } });
      const problem = await until(async () => {
        const found = await untilProblem(spec, "unschedulable");
        return /Insufficient memory/.test(found.message) && found;
      });
      expect(problem).toMatchObject({
        kind: "unschedulable",
        message: "No node has room: 0/1 nodes are available: 1 Insufficient memory.",
      });
      await log(spec, /^FailedScheduling: .*Insufficient memory/);
    },
    TIMEOUT_MS,
  );

  test.concurrent(
    "a quota that is used up by running environments",
    async () => {
      const userQuota = { cpuMillis: 500, memoryBytes: GIB, storageBytes: 10 * GIB, environments: 3 };
      const first = await begun({ userQuota });
      await untilPhase(runtime, first, "running");
      const second = await begun({ userQuota, userId: first.userId });
      expect(await untilProblem(second, "quota")).toMatchObject({
        kind: "quota",
        message: "Quota exceeded (CPU: 500m asked for, 500m of 500m in use)",
      });
      await log(second, /^FailedCreate: .*exceeded quota/);
    },
    TIMEOUT_MS,
  );

  test.concurrent(
    "a quota that is used up by workspaces, and nothing is left of the attempt",
    async () => {
      const userQuota = { cpuMillis: 4000, memoryBytes: GIB, storageBytes: 10 * GIB, environments: 1 };
      const first = await begun({ userQuota });
      const second = cluster.spec({ userQuota, userId: first.userId });
      const refusal = await runtime.ensure(second).catch((error: unknown) => error);
      expect(refusal).toBeInstanceOf(RuntimeRejected);
      expect(refusal).toMatchObject({
        kind: "quota",
        message: "Quota exceeded (environments: 1 asked for, 1 of 1 in use)",
      });
      expect(await runtime.observe(second)).toEqual({ phase: "absent" });
    },
    TIMEOUT_MS,
  );

  test.concurrent(
    "a startup command that fails, with its text and exit code",
    async () => {
      const spec = await begun({ startupCommands: ["true", "echo sorry >&2; exit 7"] });
      const { problem } = await untilPhase(runtime, spec, "failed");
      expect(problem).toMatchObject({
        kind: "command_failed",
        message: "Startup command 2 of 2 failed with exit code 7: echo sorry >&2; exit 7",
      });
      const lines = await log(spec, /exit code 7/);
      expect(lines.map(({ message }) => message)).toContain("sorry");
    },
    TIMEOUT_MS,
  );

  test.concurrent(
    "a command that runs out of memory",
    async () => {
      const resources = { cpuMillis: 500, memoryBytes: 64 * MIB, storageBytes: GIB };
      const spec = await begun({ resources, startupCommands: ["tail /dev/zero"] });
      const { problem } = await untilPhase(runtime, spec, "failed");
      expect(problem.kind).toBe("out_of_memory");
      expect(problem.message).toStartWith("ran out of memory (limit 64Mi)");
    },
    TIMEOUT_MS,
  );

  test.concurrent(
    "an image without a shell",
    async () => {
      const spec = await begun({ image: "registry.k8s.io/pause:3.6" });
      const { problem } = await untilPhase(runtime, spec, "failed");
      expect(problem).toMatchObject({
        kind: "crashed",
        message: "image registry.k8s.io/pause:3.6 has no /bin/sh",
      });
    },
    TIMEOUT_MS,
  );

  test.concurrent(
    "a container that ends again and again",
    async () => {
      const spec = await begun({ startupCommands: ["kill -TERM 1; sleep 1"] });
      const { problem } = await untilPhase(runtime, spec, "failed", 120_000);
      expect(problem).toMatchObject({
        kind: "crashed",
        message: "The container has ended 3 times, last with exit code 0",
      });
      await log(spec, /^BackOff: Back-off restarting failed container/);
    },
    TIMEOUT_MS,
  );

  test.concurrent(
    "a volume that can't grow",
    async () => {
      const spec = await begun({});
      await untilPhase(runtime, spec, "running");
      const grown = {
        ...spec,
        generation: 2,
        resources: { ...spec.resources, storageBytes: 2 * GIB },
      };
      await runtime.ensure(grown);
      await runtime.ensure(grown);
      await until(
        async () => {
          const observed = await runtime.observe(grown);
          return observed.phase === "running" && observed.generation === 2;
        },
        { timeoutMs: 60_000 },
      );
      const line = (await log(grown, /^StorageNotGrown/)).at(-1);
      expect(line).toMatchObject({
        source: "system",
        level: "WARN",
        message: `StorageNotGrown: The volume stays at 1Gi: storage class "standard" can't grow volumes`,
      });
    },
    TIMEOUT_MS,
  );
});
