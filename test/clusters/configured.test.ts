import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { registerFromFile, registerFromPod } from "../../src/clusters/configured.ts";
import { IN_CLUSTER } from "../../src/clusters/kubeconfig.ts";
import { createVault } from "../../src/clusters/vault.ts";
import { clusters } from "../../src/db/schema.ts";
import { AppError } from "../../src/errors.ts";
import { createLogger } from "../../src/lib/logger.ts";
import { temporaryDatabase } from "../database.ts";
import { environment, owner } from "../environments/setup.ts";
import { until } from "../until.ts";

let database: ReturnType<typeof temporaryDatabase>;
let folder: string;
let changed: string[];
let logged: string[];
let vet: () => Promise<string>;
let stop: AbortController;
let vault = createVault([randomBytes(32)]);

beforeEach(() => {
  database = temporaryDatabase();
  folder = mkdtempSync(join(tmpdir(), "devpocket-test-"));
  changed = [];
  logged = [];
  vet = async () => "uid-1";
  stop = new AbortController();
});
afterEach(() => {
  stop.abort();
  database.remove();
  rmSync(folder, { recursive: true });
});

const deps = () => ({
  db: database.db,
  vault,
  now: () => 7,
  log: createLogger({ format: "text", level: "debug", write: (line) => void logged.push(line) }),
  vet: () => vet(),
  onChange: (id: string) => void changed.push(id),
  stopping: stop.signal,
});

function file(token: string): string {
  const path = join(folder, "kubeconfig");
  writeFileSync(
    path,
    `
contexts: [{name: c, context: {cluster: c, user: u}}]
clusters: [{name: c, cluster: {server: "https://192.0.2.1"}}]
users: [{name: u, user: {token: ${token}}}]`,
  );
  return path;
}

const rows = () => database.db.select().from(clusters).all();
const kubeconfigs = () =>
  rows().flatMap(({ id, kubeconfig }) => (kubeconfig === null ? [] : [vault.open(kubeconfig, id)]));

function unfit(code: string): AppError {
  return new AppError("invalid", `it is ${code}`, { fields: [{ field: "kubeconfig", message: "", code }] });
}

describe("the cluster of the configuration's file", () => {
  const own = () => rows().map(({ name, origin, uid }) => ({ name, origin, uid }));
  const uids = () => rows().map(({ uid }) => uid);

  test("is registered at the first start and left alone at the next", async () => {
    registerFromFile(deps(), file("one"));
    registerFromFile(deps(), file("one"));
    expect(rows()).toMatchObject([{ name: "default", provider: "kubernetes", status: "active" }]);
    await until(() => uids()[0] === "uid-1");
    expect(kubeconfigs()).toEqual([expect.stringContaining('"token":"one"')]);
    expect(changed).toHaveLength(1);
  });

  test("follows the file", async () => {
    registerFromFile(deps(), file("one"));
    registerFromFile(deps(), file("two"));
    expect(kubeconfigs()).toEqual([expect.stringContaining('"token":"two"')]);
    expect(changed).toHaveLength(2);
  });

  test("follows the file to the same cluster only, once that is known, where environments live", async () => {
    registerFromFile(deps(), file("one"));
    await until(() => uids()[0] === "uid-1");
    environment(database.db, owner(database.db), { clusterId: rows()[0]?.id ?? "" });
    registerFromFile(deps(), file("two"));
    expect(kubeconfigs()).toEqual([expect.stringContaining('"token":"one"')]);
    await until(() => kubeconfigs()[0]?.includes('"token":"two"'));
    vet = async () => "uid-2";
    registerFromFile(deps(), file("three"));
    await until(() => logged.length > 0);
    expect(logged).toEqual([expect.stringContaining("leads to another cluster, and 1 environment lives")]);
    expect(kubeconfigs()).toEqual([expect.stringContaining('"token":"two"')]);
    expect(changed).toHaveLength(2);
  });

  test("is known by where it comes from: renamed it is the same, and another of its name is none", async () => {
    registerFromFile(deps(), file("one"));
    await until(() => uids()[0] === "uid-1");
    database.db.update(clusters).set({ name: "renamed" }).run();
    registerFromFile(deps(), file("two"));
    expect(own()).toEqual([{ name: "renamed", origin: "file", uid: null }]);
    database.db.update(clusters).set({ name: "default", origin: null }).run();
    expect(() => registerFromFile(deps(), file("three"))).toThrow('A cluster named "default" already exists');
    expect(kubeconfigs()).toEqual([expect.stringContaining('"token":"two"')]);
  });

  test("is sealed again when the key that it was sealed with is gone", async () => {
    registerFromFile(deps(), file("one"));
    vault = createVault([randomBytes(32)]);
    registerFromFile(deps(), file("one"));
    expect(kubeconfigs()).toEqual([expect.stringContaining('"token":"one"')]);
  });

  test("is registered also while it can't be reached, and the log says so", async () => {
    vet = async () => {
      throw unfit("unreachable");
    };
    registerFromFile(deps(), file("one"));
    expect(rows()).toHaveLength(1);
    await until(() => logged.length > 0);
    expect(logged).toEqual([expect.stringContaining("it is unreachable")]);
  });

  test("a file that can't be used is an error", async () => {
    expect(() => registerFromFile(deps(), join(folder, "nowhere"))).toThrow("ENOENT");
    writeFileSync(join(folder, "noise"), "hello");
    expect(() => registerFromFile(deps(), join(folder, "noise"))).toThrow("does not have the form");
    expect(rows()).toEqual([]);
  });
});

describe("the cluster that the server runs in", () => {
  test("is registered, with a token that is read from its file each time", async () => {
    await registerFromPod(deps());
    await registerFromPod(deps());
    expect(rows()).toMatchObject([{ name: "in-cluster" }]);
    expect(kubeconfigs()).toEqual([IN_CLUSTER]);
    expect(changed).toHaveLength(1);
  });

  test("is left out when its service account may not do what is needed", async () => {
    vet = async () => {
      throw unfit("missing_permissions");
    };
    await registerFromPod(deps());
    expect(rows()).toEqual([]);
    expect(logged).toEqual([expect.stringContaining("it is missing_permissions")]);
  });

  test("is waited for while it does not answer, until the server stops", async () => {
    vet = async () => {
      throw unfit("unreachable");
    };
    const waiting = registerFromPod(deps());
    await until(() => logged.length > 0);
    stop.abort();
    await waiting;
    expect(rows()).toEqual([]);
  });
});
