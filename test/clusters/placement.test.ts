import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import type { Measurement } from "../../src/clusters/capacity.ts";
import { ensureLocalCluster } from "../../src/clusters/local.ts";
import { createPlacement } from "../../src/clusters/placement.ts";
import { inTransaction } from "../../src/db/open.ts";
import { clusters, type EnvironmentStatus, environments, templates, users } from "../../src/db/schema.ts";
import { AppError } from "../../src/errors.ts";
import { newId } from "../../src/lib/ids.ts";
import type { Capacity } from "../../src/runtime/runtime.ts";
import { seedTemplates } from "../../src/templates/templates.ts";
import { temporaryDatabase } from "../database.ts";
import { environmentRow, userRow } from "../rows.ts";

const GIB = 2 ** 30;
const NOW = 1_000_000;
const ASKED = { cpuMillis: 1000, memoryBytes: GIB, storageBytes: GIB };

let database: ReturnType<typeof temporaryDatabase>;
let measured: Map<string, Measurement>;

beforeEach(() => {
  database = temporaryDatabase();
  measured = new Map();
});
afterEach(() => database.remove());

function addCluster(
  name: string,
  status: "active" | "inactive" | "maintenance" = "active",
  uid: string | null = null,
): string {
  const id = newId();
  database.db
    .insert(clusters)
    .values({ id, name, provider: "ovh", region: "GRA7", status, uid, createdAt: NOW, updatedAt: NOW })
    .run();
  return id;
}

/** Sees `used` of `total` cores and as many GiB of memory. */
function see(
  id: string,
  used: number,
  total: number,
  counted: string[] = [],
  more: Partial<Capacity> = {},
): void {
  measured.set(id, {
    reachable: true,
    atMs: NOW,
    counted: new Set(counted),
    capacity: {
      nodes: 1,
      readyNodes: 1,
      totalCpuMillis: total * 1000,
      usedCpuMillis: used * 1000,
      totalMemoryBytes: total * GIB,
      usedMemoryBytes: used * GIB,
      totalStorageBytes: null,
      usedStorageBytes: null,
      components: [],
      ...more,
    },
  });
}

/** A cluster that can't take anything, for the reason that is its name. */
function lacking(name: string): void {
  const id = addCluster(name, name === "off" ? "inactive" : "active");
  if (name === "dead") measured.set(id, { reachable: false, atMs: NOW, reason: "timeout" });
  else see(id, name === "full" ? 8 : 0, 8, [], name === "unready" ? { readyNodes: 0 } : {});
}

function addEnvironment(clusterId: string, status: EnvironmentStatus, statusSince = NOW + 1): string {
  const { db } = database;
  inTransaction(db, (tx) => seedTemplates(tx, NOW));
  const template = db.select().from(templates).limit(1).get();
  const user = userRow();
  db.insert(users).values(user).run();
  const row = environmentRow({
    userId: user.id,
    clusterId,
    templateId: template?.id ?? "",
    resources: { cpu: "1000m", memory: "1Gi", storage: "1Gi" },
    status,
    statusSince,
    createdAt: NOW,
  });
  db.insert(environments).values(row).run();
  return row.id;
}

function place(ref: string | null = null, localEnabled = true) {
  const capacity = { last: (id: string) => measured.get(id) };
  const chooser = createPlacement({ capacity, localEnabled, requestsOf: (limits) => limits });
  return inTransaction(database.db, (tx) => chooser(tx, ASKED, ref));
}

function refusal(
  ref: string | null = null,
  localEnabled = true,
): { code: string; message: string; field: unknown } {
  try {
    place(ref, localEnabled);
  } catch (error) {
    if (error instanceof AppError)
      return { code: error.code, message: error.message, field: error.fields[0] };
  }
  throw new Error("was placed");
}

describe("without a name", () => {
  test("the local cluster serves while no Kubernetes cluster is registered", () => {
    inTransaction(database.db, (tx) => ensureLocalCluster(tx, NOW));
    expect(place().reason).toBe("no Kubernetes cluster is registered");
    const other = addCluster("prod");
    see(other, 0, 8);
    expect(place().clusterId).toBe(other);
  });

  test("a registered Kubernetes cluster keeps the local one out even when it can't be used", () => {
    inTransaction(database.db, (tx) => ensureLocalCluster(tx, NOW));
    addCluster("prod", "maintenance");
    expect(refusal()).toMatchObject({
      code: "unavailable",
      field: { field: "cluster_id", code: "no_cluster" },
    });
  });

  test("a local cluster that is switched off serves nobody", () => {
    inTransaction(database.db, (tx) => ensureLocalCluster(tx, NOW));
    expect(refusal(null, false)).toMatchObject({ code: "unavailable", field: { code: "no_cluster" } });
  });

  test("the cluster with the largest free share is taken, and the reason says so", () => {
    const full = addCluster("a-full");
    const half = addCluster("b-half");
    const third = addCluster("c-third");
    see(full, 7.5, 8);
    see(half, 8, 16);
    see(third, 2, 6);
    expect(place()).toEqual({
      clusterId: third,
      reason: "most room of 2 clusters: 2000m of 6000m CPU and 2Gi of 6Gi memory were requested",
    });
  });

  test("equal clusters are taken in the order of their names", () => {
    const second = addCluster("b");
    const first = addCluster("a");
    for (const id of [first, second]) see(id, 0, 8);
    expect(place().clusterId).toBe(first);
  });

  test.each(["inactive", "maintenance"] as const)("an %s cluster gets nothing", (status) => {
    see(addCluster("empty", status), 0, 100);
    const used = addCluster("used");
    see(used, 4, 8);
    expect(place().clusterId).toBe(used);
  });

  test.each<[string[], string]>([
    [["dead"], "No cluster can be reached now"],
    [["unready"], "No cluster has a node that is ready"],
    [["dead", "unready"], "No cluster has a node that is ready"],
    [["full", "unready"], "No cluster has room for an environment that requests 1000m CPU and 1Gi memory"],
    [
      ["dead", "full"],
      "No cluster that can be reached has room for an environment that requests 1000m CPU and 1Gi memory",
    ],
    [["off"], "There is no cluster that takes new environments"],
  ])("of nothing but %j it is said why none gets it", (names, message) => {
    for (const name of names) lacking(name);
    expect(refusal()).toMatchObject({ code: "unavailable", message, field: { code: "no_cluster" } });
  });

  test("a cluster that was never measured is better than none, and worse than any that was", () => {
    const unknown = addCluster("unknown");
    expect(place()).toEqual({ clusterId: unknown, reason: "the only cluster with room: not measured yet" });
    const tight = addCluster("z-tight");
    see(tight, 7, 8);
    expect(place().clusterId).toBe(tight);
  });

  test("what a cluster does not say does not limit", () => {
    const silent = addCluster("silent");
    see(silent, 0, 8, [], { usedCpuMillis: null, totalMemoryBytes: null });
    expect(place().reason).toContain("unknown CPU and unknown memory");
  });

  test.each([
    ["cpu", { usedCpuMillis: 7500 }],
    ["memory", { usedMemoryBytes: 7.5 * GIB }],
  ])("%s alone can be what is short", (_what, more) => {
    see(addCluster("prod"), 0, 8, [], more);
    expect(refusal().message).toBe(
      "No cluster has room for an environment that requests 1000m CPU and 1Gi memory",
    );
  });

  test("room that lies in pieces on many nodes is none", () => {
    const node = (cores: number, gib: number) => ({ cpuMillis: cores * 1000, memoryBytes: gib * GIB });
    see(addCluster("a-pieces"), 0, 80, [], { nodeRooms: [node(0.5, 8), node(8, 0.5)] });
    expect(refusal().message).toStartWith("No cluster has room");
    const whole = addCluster("whole");
    see(whole, 6, 8, [], { nodeRooms: [node(0, 0), node(1, 1)] });
    expect(place()).toMatchObject({ clusterId: whole });
  });

  test("the last place is given, the one after it is not", () => {
    see(addCluster("prod"), 7, 8);
    expect(place().clusterId).toBeString();
    see(addCluster("other"), 7.001, 8);
    expect(place().reason).toContain("the only cluster");
  });
});

describe("environments that the last measurement does not show", () => {
  test("many at once never take more than there is", () => {
    const id = addCluster("prod");
    see(id, 2, 8);
    for (let placed = 0; placed < 6; placed++) {
      expect(place().clusterId).toBe(id);
      addEnvironment(id, "creating");
    }
    expect(refusal()).toMatchObject({ code: "unavailable" });
  });

  test.each([
    ["creating", true],
    ["provisioning", true],
    ["installing", true],
    ["configuring", true],
    ["running", true],
    ["restarting", true],
    ["stopping", false],
    ["stopped", false],
    ["error", false],
    ["terminated", false],
  ] as const)("one that is %s holds a place: %p", (status, holds) => {
    const id = addCluster("prod");
    see(id, 7, 8);
    addEnvironment(id, status);
    if (holds) expect(refusal().code).toBe("unavailable");
    else expect(place().clusterId).toBe(id);
  });

  test("one that was counted is not counted again, nor one that ran before", () => {
    const id = addCluster("prod");
    see(id, 7, 8, [addEnvironment(id, "provisioning"), addEnvironment(id, "running")]);
    addEnvironment(id, "running", NOW - 1);
    expect(place().clusterId).toBe(id);
  });

  test("those of another cluster don't count", () => {
    const id = addCluster("prod");
    see(id, 7, 8);
    addEnvironment(addCluster("other", "inactive"), "creating");
    expect(place().clusterId).toBe(id);
  });
});

test("a cluster that is registered twice is not booked twice", () => {
  const both = [addCluster("prod", "active", "u1"), addCluster("again", "active", "u1")];
  for (const id of both) see(id, 6, 8);
  addEnvironment(addCluster("other", "inactive", "u2"), "creating");
  for (const id of both) addEnvironment(place(id).clusterId, "creating");
  for (const ref of [...both, null]) expect(refusal(ref).code).toBe("unavailable");
});

describe("by name", () => {
  test("id and name are as good as each other", () => {
    const id = addCluster("prod");
    see(id, 0, 8);
    see(addCluster("emptier"), 0, 100);
    expect(place("prod")).toEqual(place(id));
    expect(place("prod").reason).toStartWith("named in the request; 0m of 8000m CPU");
  });

  test("the local cluster can be named beside others", () => {
    inTransaction(database.db, (tx) => ensureLocalCluster(tx, NOW));
    see(addCluster("prod"), 0, 8);
    expect(place("local").reason).toBe("named in the request");
    expect(refusal("local", false)).toMatchObject({ code: "invalid", field: { code: "inactive" } });
  });

  test.each([
    ["unknown", "nowhere", 'There is no cluster "nowhere"', "not_found"],
    ["inactive", "off", 'Cluster "off" takes no new environments: it is inactive', "inactive"],
    [
      "in maintenance",
      "busy",
      'Cluster "busy" takes no new environments: it is in maintenance',
      "maintenance",
    ],
  ])("a cluster that is %s is refused", (_what, ref, message, code) => {
    addCluster("off", "inactive");
    addCluster("busy", "maintenance");
    expect(refusal(ref)).toEqual({
      code: "invalid",
      message,
      field: { field: "cluster_id", message, code },
    });
  });

  test.each([
    ["full", 'Cluster "full" has no room for an environment that requests 1000m CPU and 1Gi memory'],
    ["dead", 'Cluster "dead" can\'t be reached now'],
    ["unready", 'Cluster "unready" has no node that is ready'],
  ])("one that is %s is not replaced by another, and it is said why", (ref, message) => {
    see(addCluster("empty"), 0, 100);
    lacking(ref);
    expect(refusal(ref)).toMatchObject({ code: "unavailable", message, field: { code: "no_cluster" } });
  });
});
