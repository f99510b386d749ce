import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { eq } from "drizzle-orm";
import { SYSTEM_ACTOR } from "../../src/audit/audit.ts";
import { resealKubeconfigs, rotateKeyFile } from "../../src/clusters/rotation.ts";
import { createVault, VAULT_KEY_BYTES, VaultError } from "../../src/clusters/vault.ts";
import { auditLog, clusters } from "../../src/db/schema.ts";
import { readOrMakeKeys } from "../../src/lib/keyfile.ts";
import { temporaryDatabase } from "../database.ts";

const [oldKey, newKey, strangeKey] = [randomBytes(32), randomBytes(32), randomBytes(32)];

let database: ReturnType<typeof temporaryDatabase>;
beforeEach(() => {
  database = temporaryDatabase();
});
afterEach(() => database.remove());

function insert(id: string, kubeconfig: string | null): void {
  const at = { createdAt: 1, updatedAt: 1 };
  database.db
    .insert(clusters)
    .values({ id, name: id, provider: "x", region: "y", kubeconfig, ...at })
    .run();
}

function stored(id: string): string {
  return database.db.select().from(clusters).where(eq(clusters.id, id)).get()?.kubeconfig ?? "";
}

describe("sealing every kubeconfig again", () => {
  test("leaves nothing that the old key opens", () => {
    const before = createVault([oldKey]);
    for (const id of ["a", "b"]) insert(id, before.seal(`config of ${id}`, id));
    insert("local", null);
    expect(resealKubeconfigs(database.db, [newKey, oldKey], SYSTEM_ACTOR, 5)).toBe(2);
    for (const id of ["a", "b"]) {
      expect(createVault([newKey]).open(stored(id), id)).toBe(`config of ${id}`);
      expect(() => before.open(stored(id), id)).toThrow(VaultError);
    }
    const trace = database.db.select().from(auditLog).all();
    expect(trace).toMatchObject([{ action: "vault.rotate", at: 5, detail: { kubeconfigs: 2 } }]);
  });

  test("changes none when one can't be opened", () => {
    insert("a", createVault([oldKey]).seal("config", "a"));
    insert("b", createVault([strangeKey]).seal("config", "b"));
    const before = [stored("a"), stored("b")];
    expect(() => resealKubeconfigs(database.db, [newKey, oldKey], SYSTEM_ACTOR, 5)).toThrow(VaultError);
    expect([stored("a"), stored("b")]).toEqual(before);
    expect(database.db.select().from(auditLog).all()).toEqual([]);
  });
});

describe("rotating the key file", () => {
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "devpocket-test-"));
  });
  afterEach(() => rmSync(folder, { recursive: true }));

  const keysIn = (file: string) => readOrMakeKeys(file, VAULT_KEY_BYTES).keys;

  test("a new key opens everything; the one before is kept, older ones go", () => {
    const file = join(folder, "encryption");
    const [first] = keysIn(file);
    insert("a", createVault(keysIn(file)).seal("config", "a"));
    expect(rotateKeyFile(database.db, file, SYSTEM_ACTOR, 5)).toBe(1);
    const [second, before] = keysIn(file);
    expect(before).toEqual(first ?? oldKey);
    expect(createVault([second ?? oldKey]).open(stored("a"), "a")).toBe("config");

    // A server that still runs with the first key registers another.
    insert("b", createVault([first ?? oldKey]).seal("config of b", "b"));
    expect(rotateKeyFile(database.db, file, SYSTEM_ACTOR, 6)).toBe(2);
    const [third, ...rest] = keysIn(file);
    expect(rest).toEqual([second ?? oldKey]);
    expect(createVault([third ?? oldKey]).open(stored("b"), "b")).toBe("config of b");
  });

  test("loses no key when it fails half-way", () => {
    const file = join(folder, "encryption");
    const before = keysIn(file);
    insert("a", createVault([strangeKey]).seal("config", "a"));
    expect(() => rotateKeyFile(database.db, file, SYSTEM_ACTOR, 5)).toThrow(VaultError);
    expect(keysIn(file).slice(1)).toEqual(before);
  });
});
