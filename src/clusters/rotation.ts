import { randomBytes } from "node:crypto";
import { eq, isNotNull } from "drizzle-orm";
import { type AuditActor, audit } from "../audit/audit.ts";
import { type Db, inTransaction } from "../db/open.ts";
import { clusters } from "../db/schema.ts";
import { readOrMakeKeys, writeKeys } from "../lib/keyfile.ts";
import { createVault, VAULT_KEY_BYTES } from "./vault.ts";

/**
 * Makes a new key in `file` and seals every kubeconfig with it. A stop at any moment leaves keys that open
 * everything. The key before stays in the file until the next rotation, since a server that is running
 * seals with it until it is started again; older ones go.
 *
 * @returns how many kubeconfigs were sealed again
 * @throws VaultError, see `resealKubeconfigs`
 */
export function rotateKeyFile(db: Db, file: string, actor: AuditActor, now: number): number {
  const { keys } = readOrMakeKeys(file, VAULT_KEY_BYTES);
  const all = [randomBytes(VAULT_KEY_BYTES), ...keys];
  writeKeys(file, all);
  const resealed = resealKubeconfigs(db, all, actor, now);
  writeKeys(file, all.slice(0, 2));
  return resealed;
}

/**
 * Seals every kubeconfig again with the first key, all in one transaction: a failure leaves everything as
 * it was. Afterwards the other keys open nothing any more.
 *
 * @returns how many were sealed again
 * @throws VaultError when one can't be opened with any of `keys`
 */
export function resealKubeconfigs(db: Db, keys: readonly Buffer[], actor: AuditActor, now: number): number {
  const vault = createVault(keys);
  return inTransaction(db, (tx) => {
    const rows = tx
      .select({ id: clusters.id, kubeconfig: clusters.kubeconfig })
      .from(clusters)
      .where(isNotNull(clusters.kubeconfig))
      .all();
    for (const { id, kubeconfig } of rows) {
      if (kubeconfig === null) continue;
      const resealed = vault.seal(vault.open(kubeconfig, id), id);
      tx.update(clusters).set({ kubeconfig: resealed }).where(eq(clusters.id, id)).run();
    }
    audit(tx, actor, { action: "vault.rotate", detail: { kubeconfigs: rows.length } }, now);
    return rows.length;
  });
}
