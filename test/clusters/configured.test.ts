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
import { until } from "../until.ts";

let database: ReturnType<typeof temporaryDatabase>;
let folder: string;
let changed: string[];
let logged: string[];
let vet: () => Promise<void>;
let vault = createVault([randomBytes(32)]);

beforeEach(() => {
  database = temporaryDatabase();
  folder = mkdtempSync(join(tmpdir(), "devpocket-test-"));
  changed = [];
  logged = [];
  vet = async () => {};
});
afterEach(() => {
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
const kubeconfigs = () => rows().map(({ id, kubeconfig }) => vault.open(kubeconfig ?? "", id));

function unfit(code: string): AppError {
  return new AppError("invalid", `it is ${code}`, { fields: [{ field: "kubeconfig", message: "", code }] });
}

describe("the cluster of the configuration's file", () => {
  test("is registered at the first start and left alone at the next", async () => {
    registerFromFile(deps(), file("one"));
    registerFromFile(deps(), file("one"));
    expect(rows()).toMatchObject([{ name: "default", provider: "kubernetes", status: "active" }]);
    expect(kubeconfigs()).toEqual([expect.stringContaining('"token":"one"')]);
    expect(changed).toHaveLength(1);
  });

  test("follows the file", async () => {
    registerFromFile(deps(), file("one"));
    registerFromFile(deps(), file("two"));
    expect(kubeconfigs()).toEqual([expect.stringContaining('"token":"two"')]);
    expect(changed).toHaveLength(2);
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
  const options = (signal = new AbortController().signal) => ({ signal, tokenFile: join(folder, "token") });

  test("is none where there is no service account", async () => {
    vet = async () => {
      throw new Error("was asked");
    };
    await registerFromPod(deps(), options());
    expect(rows()).toEqual([]);
  });

  test("is registered, with a token that is read from its file each time", async () => {
    writeFileSync(join(folder, "token"), "t");
    await registerFromPod(deps(), options());
    await registerFromPod(deps(), options());
    expect(rows()).toMatchObject([{ name: "in-cluster" }]);
    expect(kubeconfigs()).toEqual([IN_CLUSTER]);
    expect(changed).toHaveLength(1);
  });

  test("is left out when its service account may not do what is needed", async () => {
    writeFileSync(join(folder, "token"), "t");
    vet = async () => {
      throw unfit("missing_permissions");
    };
    await registerFromPod(deps(), options());
    expect(rows()).toEqual([]);
    expect(logged).toEqual([expect.stringContaining("is not registered")]);
  });

  test("is waited for while it does not answer, until the server stops", async () => {
    writeFileSync(join(folder, "token"), "t");
    vet = async () => {
      throw unfit("unreachable");
    };
    const stop = new AbortController();
    const waiting = registerFromPod(deps(), options(stop.signal));
    await until(() => logged.length > 0);
    stop.abort();
    await waiting;
    expect(rows()).toEqual([]);
  });
});
