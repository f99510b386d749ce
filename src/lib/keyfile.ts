import { randomBytes } from "node:crypto";
import {
  closeSync,
  fsyncSync,
  linkSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  unlinkSync,
  writeSync,
} from "node:fs";
import { dirname } from "node:path";

/*
 * Files of secret keys: base64, one key a line, readable by their owner only. They appear whole or not at
 * all, also when the machine stops half-way.
 */

/** A file of keys that is there and can't be used. The message is one line and names it. */
export class DamagedKeyFile extends Error {
  override readonly name = "DamagedKeyFile";
}

/**
 * The keys in `path`. Where there is no such file one key of `bytes` bytes is made; of several processes
 * that do so at once one wins and all get its key.
 *
 * @throws DamagedKeyFile for one that is no file or holds something else
 * @throws Error for one that can't be read
 */
export function readOrMakeKeys(path: string, bytes: number): { keys: Buffer[]; made: boolean } {
  const present = readKeys(path, bytes);
  if (present) return { keys: present, made: false };
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  const draft = writeDraft(path, [randomBytes(bytes)]);
  try {
    // Unlike a rename, a link never replaces what another process has made meanwhile.
    linkSync(draft, path);
  } catch (error) {
    if (!hasCode(error, "EEXIST")) throw error;
  } finally {
    unlinkSync(draft);
  }
  const keys = readKeys(path, bytes);
  if (!keys) throw new Error(`${path} vanished while it was made`);
  return { keys, made: true };
}

/** Replaces the keys in `path`. */
export function writeKeys(path: string, keys: Buffer[]): void {
  renameSync(writeDraft(path, keys), path);
}

function readKeys(path: string, bytes: number): Buffer[] | undefined {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    if (hasCode(error, "ENOENT")) return undefined;
    // The system's message names no path.
    if (hasCode(error, "EISDIR")) throw new DamagedKeyFile(`${path} is a folder, not a file of keys`);
    throw error;
  }
  const keys = text
    .split("\n")
    .filter(Boolean)
    .map((line) => Buffer.from(line, "base64"));
  if (keys.length === 0 || keys.some((key) => key.length !== bytes)) {
    throw new DamagedKeyFile(`${path} does not hold keys of ${bytes} bytes in base64`);
  }
  return keys;
}

function writeDraft(path: string, keys: Buffer[]): string {
  const draft = `${path}.${process.pid}.${randomBytes(4).toString("hex")}`;
  const file = openSync(draft, "wx", 0o600);
  try {
    writeSync(file, keys.map((key) => `${key.toString("base64")}\n`).join(""));
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
  return draft;
}

function hasCode(error: unknown, code: string): boolean {
  return error instanceof Error && "code" in error && error.code === code;
}
