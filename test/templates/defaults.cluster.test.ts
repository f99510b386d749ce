import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { newId } from "../../src/lib/ids.ts";
import type { LogLine } from "../../src/runtime/runtime.ts";
import { DEFAULT_TEMPLATES } from "../../src/templates/defaults.ts";
import { type Cluster, openCluster } from "../runtime/kubernetes/cluster.ts";
import { until } from "../until.ts";

/*
 * Where the cluster has no way out and its images lack the tools, nothing can be installed: environments
 * are to run all the same. Where it has one, the tools are there.
 */
describe.if(Boolean(process.env.KUBECONFIG))("environments from the default templates, on a cluster", () => {
  let cluster: Cluster;
  const userId = newId();
  beforeAll(() => {
    cluster = openCluster();
  });
  afterAll(async () => {
    await cluster.close();
  }, 120_000);

  test.each(DEFAULT_TEMPLATES.map((template) => [template.name, template] as const))(
    "%s runs",
    async (_name, template) => {
      const spec = cluster.spec({
        userId,
        image: template.dockerImage ?? null,
        startupCommands: template.startupCommands,
        variables: template.environmentVariables,
        capabilities: template.capabilities,
      });
      const { runtime } = cluster;
      await runtime.ensure(spec);
      const reached = async () => ["running", "failed"].includes((await runtime.observe(spec)).phase);
      await until(reached, { timeoutMs: 170_000, intervalMs: 250 });
      expect(await runtime.observe(spec)).toMatchObject({ phase: "running" });

      const lines: LogLine[] = [];
      const options = { after: null, signal: AbortSignal.timeout(3000) };
      for await (const line of runtime.logs(spec, options)) lines.push(line);
      const denied = lines.filter(({ message }) => /not permitted|permission denied/i.test(message));
      expect(lines).not.toBeEmpty();
      expect(denied).toEqual([]);
    },
    180_000,
  );
});
