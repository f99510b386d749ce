import { createCipheriv, createDecipheriv, createHash, randomBytes } from "node:crypto";

export const VAULT_KEY_BYTES = 32;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;

/** Keeps secrets at rest. What was sealed for one owner (a cluster's id) can't be opened as another's. */
export interface Vault {
  seal(plaintext: string, owner: string): string;
  /** @throws VaultError when its key is not here, or the text was changed or belongs to another owner */
  open(sealed: string, owner: string): string;
}

export class VaultError extends Error {
  override readonly name = "VaultError";
}

/**
 * AES-256-GCM (NIST SP 800-38D) with a random 96-bit nonce; the owner is authenticated with it.
 * Sealed: `v1.<key id>.<nonce>.<ciphertext and tag>`, base64url.
 *
 * @param keys of 32 bytes: the first seals, all open
 */
export function createVault(keys: readonly Buffer[]): Vault {
  const [first] = keys;
  if (!first) throw new VaultError("There is no key");
  const byId = new Map(keys.map((key) => [keyId(key), key]));
  return {
    seal(plaintext, owner) {
      const nonce = randomBytes(NONCE_BYTES);
      const cipher = createCipheriv("aes-256-gcm", first, nonce).setAAD(Buffer.from(owner));
      const parts = [cipher.update(plaintext, "utf8"), cipher.final(), cipher.getAuthTag()];
      return [
        "v1",
        keyId(first),
        nonce.toString("base64url"),
        Buffer.concat(parts).toString("base64url"),
      ].join(".");
    },
    open(sealed, owner) {
      const [version, id = "", nonce = "", body = ""] = sealed.split(".");
      if (version !== "v1") throw new VaultError("Sealed in an unknown form");
      const key = byId.get(id);
      if (!key) throw new VaultError(`Sealed with key ${id}, which is not configured`);
      const bytes = Buffer.from(body, "base64url");
      try {
        const decipher = createDecipheriv("aes-256-gcm", key, Buffer.from(nonce, "base64url"), {
          authTagLength: TAG_BYTES,
        });
        decipher.setAAD(Buffer.from(owner)).setAuthTag(bytes.subarray(-TAG_BYTES));
        return decipher.update(bytes.subarray(0, -TAG_BYTES), undefined, "utf8") + decipher.final("utf8");
      } catch {
        throw new VaultError("Sealed for something else, or damaged");
      }
    },
  };
}

/** Tells keys apart without saying anything about them. */
function keyId(key: Buffer): string {
  return createHash("sha256").update("devpocket vault key").update(key).digest("hex").slice(0, 8);
}
