import { expect, test } from "bun:test";
import { createKubeClient } from "../../../src/runtime/kubernetes/api/client.ts";
import type { KubeEvent } from "../../../src/runtime/kubernetes/api/objects.ts";
import { environmentPaths } from "../../../src/runtime/kubernetes/api/paths.ts";
import { storageToAsk } from "../../../src/runtime/kubernetes/storage.ts";
import type { EnvironmentSpec } from "../../../src/runtime/runtime.ts";
import { StandIn } from "./stand-in.ts";

const GIB = 2 ** 30;

test("a volume that can't grow is told of once for each generation, however often that is asked for", async () => {
  const names: string[] = [];
  const standIn = new StandIn({
    async request({ pathname }, request) {
      if (pathname !== environmentPaths(SPEC).events) return undefined;
      expect(request.method).toBe("POST");
      const { metadata }: KubeEvent = JSON.parse(await request.text());
      if (names.includes(metadata.name ?? "")) return new Response(null, { status: 409 });
      names.push(metadata.name ?? "");
      return { metadata };
    },
  });
  const context = { client: createKubeClient(standIn.connection), serverId: "s", now: Date.now };
  const claim = { metadata: {}, spec: { resources: { requests: { storage: "1Gi" } } } };
  for (const generation of [1, 1, 2, 2]) {
    expect(await storageToAsk(context, { ...SPEC, generation }, claim)).toBe(GIB);
  }
  expect(names).toEqual(["env-e.storage.1", "env-e.storage.2"]);
  expect(standIn.asked.filter((asked) => /PATCH|PUT/.test(asked))).toEqual([]);
  await standIn.close();
});

const SPEC: EnvironmentSpec = {
  environmentId: "e",
  userId: "u",
  name: "e",
  generation: 1,
  image: null,
  startupCommands: [],
  variables: {},
  resources: { cpuMillis: 100, memoryBytes: GIB, storageBytes: 2 * GIB },
  port: 8000,
  capabilities: [],
  userQuota: null,
};
