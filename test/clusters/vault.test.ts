import { describe, expect, test } from "bun:test";
import { randomBytes } from "node:crypto";
import { createVault, VaultError } from "../../src/clusters/vault.ts";

const [oldKey, newKey, strangeKey] = [randomBytes(32), randomBytes(32), randomBytes(32)];

describe("the vault", () => {
  test("opens what it sealed, and shows nothing of it meanwhile", () => {
    const vault = createVault([oldKey]);
    const sealed = vault.seal("apiVersion: v1 – ключ", "cluster-1");
    expect(sealed).not.toContain("apiVersion");
    expect(Buffer.from(sealed.split(".")[3] ?? "", "base64url").toString("latin1")).not.toContain(
      "apiVersion",
    );
    expect(vault.open(sealed, "cluster-1")).toBe("apiVersion: v1 – ключ");
  });

  test("seals the same text differently each time", () => {
    const vault = createVault([oldKey]);
    expect(vault.seal("x", "c")).not.toBe(vault.seal("x", "c"));
  });

  test("opens with any of its keys and seals with the first", () => {
    const sealed = createVault([oldKey]).seal("secret", "c");
    const both = createVault([newKey, oldKey]);
    expect(both.open(sealed, "c")).toBe("secret");
    expect(() => createVault([oldKey]).open(both.seal("secret", "c"), "c")).toThrow(VaultError);
  });

  const vault = createVault([oldKey]);
  const sealed = vault.seal("secret", "cluster-1");
  const [version = "", key = "", nonce = "", body = ""] = sealed.split(".");
  const flipped = `${body.startsWith("A") ? "B" : "A"}${body.slice(1)}`;
  test.each([
    ["another owner", sealed, "cluster-2", vault],
    ["a changed text", [version, key, nonce, flipped].join("."), "cluster-1", vault],
    ["a cut text", [version, key, nonce, body.slice(0, 8)].join("."), "cluster-1", vault],
    ["no tag", [version, key, nonce, ""].join("."), "cluster-1", vault],
    ["another nonce", [version, key, "AAAAAAAAAAAAAAAA", body].join("."), "cluster-1", vault],
    ["another form", ["v2", key, nonce, body].join("."), "cluster-1", vault],
    ["nothing at all", "", "cluster-1", vault],
    ["a key that is not here", sealed, "cluster-1", createVault([strangeKey])],
  ])("refuses %s", (_what, text, owner, with_) => {
    expect(() => with_.open(text, owner)).toThrow(VaultError);
  });

  test("needs a key", () => {
    expect(() => createVault([])).toThrow(VaultError);
  });
});
