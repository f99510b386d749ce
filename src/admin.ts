import { Database } from "bun:sqlite";
import {
  closeSync,
  existsSync,
  fstatSync,
  fsyncSync,
  linkSync,
  mkdtempSync,
  openSync,
  renameSync,
  rmSync,
  statSync,
  unlinkSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { localUrl } from "./address.ts";
import { createApp } from "./app.ts";
import { SYSTEM_ACTOR } from "./audit/audit.ts";
import {
  type GivenPassword,
  resetPassword as givePassword,
  createAdmin as makeAdmin,
} from "./auth/administrators.ts";
import { createPasswords } from "./auth/passwords.ts";
import { createSessions } from "./auth/sessions.ts";
import { resealKubeconfigs, rotateKeyFile } from "./clusters/rotation.ts";
import { type Config, ConfigError } from "./config/config.ts";
import { type Data, databaseFile, encryptionKeyFile, openData } from "./data.ts";
import { damage } from "./db/open.ts";
import { AppError } from "./errors.ts";
import { createLogger } from "./lib/logger.ts";

/*
 * The commands that work on the data folder beside a running server, or without one. Each gives its exit
 * code.
 */

export function migrate(config: Config): number {
  const { applied, close } = openData(config);
  close();
  console.log(applied.length === 0 ? "The database is up to date" : `Applied ${applied.length} migration(s)`);
  return 0;
}

/** May be the first thing that is done with a data folder: in a wrong one it is to be seen. */
export function createAdmin(config: Config, email: string, username = "admin"): Promise<number> {
  if (!hasDatabase(config)) {
    openData(config).close();
    console.log(`Made a new installation in ${config.dataDir}`);
  }
  return withAccounts(config, (deps) => makeAdmin(deps, { username, email, password: undefined }));
}

/** A running server refuses the ended sessions at once; within half a minute it ends their sockets and streams. */
export async function resetPassword(config: Config, name: string): Promise<number> {
  requireDatabase(config);
  return withAccounts(config, (deps) => givePassword(deps, { name, password: undefined }));
}

/** An empty file is none: a server would make a new one of it. */
function hasDatabase(config: Config): boolean {
  return (statSync(databaseFile(config), { throwIfNoEntry: false })?.size ?? 0) > 0;
}

/**
 * For commands that have no use where there is no installation: they are to make none in a folder that was
 * mistaken for one.
 *
 * @throws ConfigError
 */
function requireDatabase(config: Config): void {
  if (hasDatabase(config)) return;
  throw new ConfigError(`DATA_DIR=${config.dataDir} holds no database. Example: DATA_DIR=/var/lib/devpocket`);
}

async function withAccounts(
  config: Config,
  work: (deps: Parameters<typeof givePassword>[0]) => Promise<GivenPassword>,
): Promise<number> {
  const data: Data = openData(config);
  const deps = {
    db: data.db,
    now: Date.now,
    passwords: createPasswords(),
    sessions: createSessions({ db: data.db, now: Date.now, onSessionEnded: () => {} }),
  };
  try {
    const { user, generatedPassword } = await work(deps);
    console.log(`${user.username} <${user.email}>, password ${generatedPassword} (shown this once)`);
    return 0;
  } catch (error) {
    if (!(error instanceof AppError)) throw error;
    const faults = error.fields.map(({ field, message }) => `${field}: ${message}`);
    console.error(`devpocket: ${[error.message, ...faults].join("; ")}`);
    return 2;
  } finally {
    data.close();
  }
}

/**
 * `VACUUM INTO` reads one snapshot, whatever a running server writes meanwhile. The copy is its owner's only:
 * it holds what the database holds. It has its name once it is whole: half of one may open like a new database.
 */
export function backup(config: Config, file: string): number {
  requireDatabase(config);
  const partial = `${file}.partial`;
  if (!existsSync(file)) {
    copyDatabase(databaseFile(config), partial);
    if (giveName(partial, file)) {
      console.log(`Wrote ${file}; keep ${config.dataDir}/keys beside it`);
      return 0;
    }
  }
  console.error(`devpocket: ${file} exists; a backup never overwrites`);
  return 2;
}

/** To `partial`, in place of what an earlier attempt has left there; it lasts once this returns. */
function copyDatabase(source: string, partial: string): void {
  // A journal that was left would be rolled back into the new file.
  for (const left of [partial, `${partial}-journal`]) rmSync(left, { force: true });
  const copy = openSync(partial, "wx", 0o600);
  try {
    vacuumInto(partial, source);
    fsyncSync(copy);
    // Another backup to the same name takes this one for left over: what is there now is half of that one's.
    if (statSync(partial).ino !== fstatSync(copy).ino)
      throw new ConfigError(`${partial} is being written to`);
  } finally {
    closeSync(copy);
  }
}

function vacuumInto(partial: string, source: string): void {
  const database = new Database(source, { readwrite: true });
  try {
    database.run("PRAGMA busy_timeout = 5000");
    database.run("VACUUM INTO ?", [partial]);
  } catch (error) {
    rmSync(partial, { force: true });
    throw damage(source, error) ?? error;
  } finally {
    database.close();
  }
}

/** False when `file` is there: unlike a rename, a link never replaces what was made meanwhile. */
function giveName(partial: string, file: string): boolean {
  try {
    linkSync(partial, file);
  } catch (error) {
    const isThere = error instanceof Error && "code" in error && error.code === "EEXIST";
    if (isThere || existsSync(file)) {
      rmSync(partial, { force: true });
      return false;
    }
    // A file system without links, such as FAT.
    renameSync(partial, file);
    return true;
  }
  unlinkSync(partial);
  return true;
}

/** The document is made from the routes, and the routes need a database: one that is thrown away. */
export async function printOpenApi(config: Config): Promise<number> {
  const folder = mkdtempSync(join(tmpdir(), "devpocket-openapi-"));
  try {
    const log = createLogger({ format: "text", level: "error" });
    const app = await createApp({ ...config, dataDir: folder }, log);
    console.log(JSON.stringify(app.openApi(), null, 2));
    await app.stop(undefined);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  return 0;
}

/** Prints what runs DevPocket itself in a cluster, for `kubectl apply -f -`. */
export async function printManifests(options: { image: string; namespace?: string }): Promise<number> {
  const { serverManifests, toYaml } = await import("./runtime/kubernetes/manifests/deployment.ts");
  console.log(toYaml(serverManifests(options)));
  return 0;
}

/**
 * Seals every kubeconfig with a new key. Keys of the configuration are the operator's: there the new one
 * stands first already. A running server goes on with the key before until it is started again.
 */
export function rotateKey(config: Config): number {
  requireDatabase(config);
  const { db, close } = openData(config);
  try {
    if (config.encryptionKeys) {
      const count = resealKubeconfigs(db, config.encryptionKeys, SYSTEM_ACTOR, Date.now());
      console.log(`Sealed ${count} kubeconfig(s) with the first key of ENCRYPTION_KEY; the others may go`);
    } else {
      const file = encryptionKeyFile(config);
      console.log(
        `Made a new key in ${file}; sealed ${rotateKeyFile(db, file, SYSTEM_ACTOR, Date.now())} kubeconfig(s)`,
      );
    }
  } finally {
    close();
  }
  return 0;
}

/** Asks the server on this machine; says what it answered unless it is ready. */
export async function health(config: Config): Promise<number> {
  const url = `${localUrl(config)}/health/ready`;
  try {
    // The certificate is for the public name, not for this address.
    const answer = await fetch(url, {
      tls: { rejectUnauthorized: false },
      signal: AbortSignal.timeout(3000),
    });
    if (answer.ok) return 0;
    console.error(`devpocket: ${url} answers ${answer.status}`);
  } catch {
    console.error(`devpocket: nothing answers at ${url}`);
  }
  return 1;
}
