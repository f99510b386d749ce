import { expect, test } from "bun:test";
import type { Node, Pod } from "../../../src/runtime/kubernetes/api/objects.ts";
import { capacityOf } from "../../../src/runtime/kubernetes/capacity.ts";
import type { ComponentHealth } from "../../../src/runtime/runtime.ts";

const GIB = 2 ** 30;

function node(name: string, spec: NonNullable<Node["spec"]> = {}, pods = "110"): Node {
  return {
    metadata: { name },
    spec,
    status: {
      allocatable: { cpu: "4", memory: "8Gi", pods },
      conditions: [{ type: "Ready", status: "True" }],
    },
  };
}

function pod(cpu: string, memory: string, nodeName?: string): Pod {
  return {
    metadata: { name: "p" },
    spec: {
      containers: [{ name: "c", image: "i", resources: { requests: { cpu, memory } } }],
      ...(nodeName ? { nodeName } : {}),
    },
  };
}

const NO_SCHEDULE = { key: "node-role.kubernetes.io/control-plane", effect: "NoSchedule" };
const NODES = [
  node("control-plane", { taints: [NO_SCHEDULE] }),
  node("worker"),
  node("preferred-not", { taints: [{ key: "a", effect: "PreferNoSchedule" }] }, "1"),
];

test("what there is for environments is that of nodes that take their pods, each with what it has left", () => {
  const pods = [
    pod("3", "6Gi", "control-plane"),
    pod("1", "2Gi", "worker"),
    pod("500m", "512Mi", "worker"),
    pod("100m", "1Gi", "preferred-not"),
    pod("1", "1Gi"),
  ];
  expect(capacityOf(NODES, pods, [], [])).toMatchObject({
    nodes: 3,
    readyNodes: 3,
    totalCpuMillis: 8000,
    usedCpuMillis: 2600,
    totalMemoryBytes: 16 * GIB,
    usedMemoryBytes: 4.5 * GIB,
    // The third has as many pods as it takes.
    nodeRooms: [{ cpuMillis: 2500, memoryBytes: 5.5 * GIB }],
  });
});

test.each<[string, ComponentHealth["status"], Node[]]>([
  ["healthy with a control plane that takes no pods", "healthy", NODES],
  ["degraded with one that is cordoned", "degraded", [...NODES, node("old", { unschedulable: true })]],
  ["unhealthy where none takes pods", "unhealthy", NODES.slice(0, 1)],
])("its nodes are %s", (_what, status, nodes) => {
  const nodesHealth = capacityOf(nodes, [], [], []).components.find(({ name }) => name === "nodes");
  expect(nodesHealth?.status).toBe(status);
});
