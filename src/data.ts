import { Database, SQLiteError } from "bun:sqlite";
import { accessSync, chmodSync, closeSync, constants, mkdirSync, openSync } from "node:fs";
import { join } from "node:path";
import { type Config, ConfigError } from "./config/config.ts";
import { type OpenDatabase, openDatabase } from "./db/open.ts";
import { DamagedKeyFile, readOrMakeKeys } from "./lib/keyfile.ts";

const KEY_BYTES = 32;

/** What a server keeps on disk: one folder with the database, the keys and the local runtime's workspaces. */
export interface Data extends OpenDatabase {
  /** Files of keys that this start has made. */
  keysMade: string[];
  jwtSecret: string;
  /** The first encrypts, all decrypt. */
  encryptionKeys: Buffer[];
}

/** Where the encryption keys are kept when the configuration names none. */
export function encryptionKeyFile(config: Config): string {
  return join(config.dataDir, "keys", "encryption");
}

export function databaseFile(config: Config): string {
  return join(config.dataDir, "devpocket.db");
}

/**
 * Opens the data folder for a command, beside a running server or without one. A schema that a server works
 * on is left as it is.
 *
 * @throws ConfigError when the folder can't be used
 */
export function openData(config: Config): Data {
  makeFolder(config.dataDir);
  let lock: Database | undefined;
  const beforeMigrating = () => {
    lock = takeLock(config);
    if (lock) return;
    throw new ConfigError(
      `DATA_DIR=${config.dataDir} is in use by a server of another version: stop that before its database is changed`,
    );
  };
  try {
    return open(config, beforeMigrating);
  } finally {
    lock?.close();
  }
}

/**
 * Opens the data folder for a server: two at a time would fight over its environments.
 *
 * @throws ConfigError when another server has it
 */
export function openLockedData(config: Config): Data {
  makeFolder(config.dataDir);
  // First of all: another server's database is not to be touched, nor its schema changed.
  const lock = takeLock(config);
  if (!lock) {
    throw new ConfigError(
      `DATA_DIR=${config.dataDir} is in use by another DevPocket server. Example: DATA_DIR=/var/lib/devpocket-2`,
    );
  }
  try {
    const data = open(config);
    return {
      ...data,
      close() {
        data.close();
        lock.close();
      },
    };
  } catch (error) {
    lock.close();
    throw error;
  }
}

/** Made on first use: database with migrations, keys of mode 0600. */
function open(config: Config, beforeMigrating?: () => void): Data {
  const keysMade: string[] = [];
  const keys = (file: string) => {
    const { keys, made } = readKeys(file);
    if (made) keysMade.push(file);
    return keys;
  };
  const jwtSecret =
    config.jwtSecret ??
    keys(join(config.dataDir, "keys", "jwt"))
      .map((key) => key.toString("base64"))
      .join("");
  const encryptionKeys = config.encryptionKeys ?? keys(encryptionKeyFile(config));
  const file = databaseFile(config);
  // The folder may have been there, open to others. The files of the WAL take the database's mode.
  closeSync(openSync(file, "a", 0o600));
  chmodSync(file, 0o600);
  const database = openDatabase(file, beforeMigrating);
  return { ...database, keysMade, jwtSecret, encryptionKeys };
}

function readKeys(file: string): ReturnType<typeof readOrMakeKeys> {
  try {
    return readOrMakeKeys(file, KEY_BYTES);
  } catch (error) {
    if (!(error instanceof DamagedKeyFile)) throw error;
    throw new ConfigError(`${error.message}: restore it from a backup`);
  }
}

function makeFolder(folder: string): void {
  try {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    accessSync(folder, constants.R_OK | constants.W_OK | constants.X_OK);
  } catch {
    throw new ConfigError(
      `DATA_DIR=${folder} can't be made or written to. Example: DATA_DIR=/var/lib/devpocket`,
    );
  }
}

/**
 * The lock is the kernel's and goes with the process, however it ends. Undefined: a server has it.
 *
 * @throws ConfigError when it can't be had for another reason
 */
function takeLock({ dataDir }: Config): Database | undefined {
  let lock: Database | undefined;
  try {
    lock = new Database(join(dataDir, "server.lock"), { create: true });
    lock.run("PRAGMA locking_mode = EXCLUSIVE");
    lock.run("BEGIN EXCLUSIVE");
    return lock;
  } catch (error) {
    lock?.close();
    if (!(error instanceof SQLiteError)) throw error;
    if (error.code === "SQLITE_BUSY") return undefined;
    throw new ConfigError(`DATA_DIR=${dataDir} can't be locked: ${error.message}`);
  }
}
