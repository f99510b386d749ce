import { afterAll, expect, test } from "bun:test";
import { type LogLine, RuntimeUnreachable } from "../../../src/runtime/runtime.ts";
import { canBreakCluster, fault, onCluster } from "../../on-cluster.ts";
import { until } from "../../until.ts";
import { type Cluster, openCluster, untilPhase } from "./cluster.ts";

const TIMEOUT_MS = 240_000;

onCluster(
  "while the cluster is shaken",
  () => {
    const cluster: Cluster = openCluster();
    const { runtime } = cluster;
    afterAll(() => cluster.close(), TIMEOUT_MS);

    test(
      "environments come up, and a log loses nothing and repeats nothing",
      async () => {
        const count = 400;
        const command = `i=0; while [ $i -lt ${count} ]; do i=$((i+1)); echo "line $i"; sleep 0.02; done`;
        const specs = Array.from({ length: 4 }, () => cluster.spec({ startupCommands: [command] }));
        const shaking = new AbortController();
        const shaken = (async () => {
          while (!shaking.signal.aborted) {
            await fault("connections-cut");
            await Bun.sleep(1_500);
          }
        })();
        try {
          await Promise.all(
            specs.map(async (spec) => {
              await again(() => runtime.ensure(spec));
              const lines: LogLine[] = [];
              let after: string | null = null;
              const isLast = ({ message }: LogLine) => message === `line ${count}`;
              await until(
                () =>
                  again(async () => {
                    const signal = AbortSignal.timeout(60_000);
                    for await (const line of runtime.logs(spec, { after, signal })) {
                      lines.push(line);
                      after = line.cursor;
                      if (isLast(line)) return true;
                    }
                    return lines.some(isLast);
                  }),
                { timeoutMs: 120_000 },
              );
              const told = lines
                .filter(({ message }) => message.startsWith("line "))
                .map(({ message }) => message);
              expect(told).toEqual(Array.from({ length: count }, (_, index) => `line ${index + 1}`));
              await again(() => untilPhase(runtime, spec, "running", 120_000));
            }),
          );
        } finally {
          shaking.abort();
          await shaken;
        }
      },
      TIMEOUT_MS,
    );

    test(
      "an API server that is gone is said to be unreachable, never answered for from memory",
      async () => {
        const spec = cluster.spec();
        await runtime.ensure(spec);
        await untilPhase(runtime, spec, "running");
        const changes = new AbortController();
        const told = new Set<string>();
        const listening = (async () => {
          for await (const ref of runtime.changes(changes.signal)) told.add(ref.environmentId);
        })();
        await fault("apiserver-stop");
        try {
          await until(
            async () => (await problem(() => runtime.observe(spec))) instanceof RuntimeUnreachable,
            {
              timeoutMs: 20_000,
            },
          );
          for (const ask of [
            () => runtime.ensure(spec),
            () => runtime.stop(spec),
            () => runtime.capacity(),
          ]) {
            expect(await problem<unknown>(ask)).toBeInstanceOf(RuntimeUnreachable);
          }
        } finally {
          await fault("apiserver-start");
        }
        await until(() => again(() => runtime.observe(spec)).then(({ phase }) => phase === "running"), {
          timeoutMs: 60_000,
        });
        // The watch is back too: what happens from now on is told.
        told.clear();
        await again(() => runtime.stop(spec));
        await until(() => told.has(spec.environmentId), { timeoutMs: 60_000 });
        changes.abort();
        await listening;
      },
      TIMEOUT_MS,
    );
  },
  canBreakCluster,
);

/** As a reconciler does: what can't be reached is asked again. */
async function again<T>(ask: () => Promise<T>): Promise<T> {
  const end = performance.now() + 90_000;
  for (;;) {
    try {
      return await ask();
    } catch (error) {
      if (!(error instanceof RuntimeUnreachable) || performance.now() > end) throw error;
      await Bun.sleep(200);
    }
  }
}

async function problem<T>(ask: () => Promise<T>): Promise<unknown> {
  try {
    return await ask();
  } catch (error) {
    return error;
  }
}
