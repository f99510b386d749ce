import { afterEach, beforeEach, expect, test } from "bun:test";
import { appendFileSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { Journal, type JournalEntry } from "../../../src/runtime/local/journal.ts";
import type { LogLine } from "../../../src/runtime/runtime.ts";
import { temporaryFolder } from "./harness.ts";

let folder = temporaryFolder();
beforeEach(() => {
  folder = temporaryFolder();
});
afterEach(() => folder.remove());

function entry(message: string): JournalEntry {
  return { atMs: 1, level: "INFO", source: "container", generation: 1, message };
}

async function all(journal: Journal, after: string | null = null): Promise<LogLine[]> {
  return await Array.fromAsync(journal.read(after, AbortSignal.timeout(5000), () => true));
}

test("a journal without lines is read to its end", async () => {
  expect(await all(new Journal(folder.path))).toEqual([]);
});

test("from every cursor follows exactly the next line, also in a journal opened again", async () => {
  const journal = new Journal(folder.path);
  const messages = Array.from({ length: 50 }, (_, index) => `line ${index} ${"é\u001b[1m".repeat(index)}`);
  for (const message of messages) journal.append([entry(message)]);
  const lines = await all(journal);
  expect(lines.map(({ message }) => message)).toEqual(messages);
  for (const [index, { cursor }] of lines.entries()) {
    expect(await all(new Journal(folder.path), cursor)).toEqual(lines.slice(index + 1));
  }
});

test("a reader gets what comes while it waits, once and in order", async () => {
  const journal = new Journal(folder.path);
  let over = false;
  const read = Array.fromAsync(journal.read(null, AbortSignal.timeout(5000), () => over));
  for (let index = 0; index < 200; index++) {
    journal.append([entry(`${index}`), entry(`${index}b`)]);
    if (index % 20 === 0) await Bun.sleep(1);
  }
  over = true;
  journal.wake();
  const expected = Array.from({ length: 200 }, (_, index) => [`${index}`, `${index}b`]).flat();
  expect((await read).map(({ message }) => message)).toEqual(expected);
});

test("a line that a killed server has not written to its end is gone, the next one is whole", async () => {
  const journal = new Journal(folder.path);
  journal.append([entry("first")]);
  const [first] = await all(journal);
  journal.close();
  appendFileSync(join(folder.path, "log.1.jsonl"), '[1,"INFO","conta');
  const again = new Journal(folder.path);
  again.append([entry("second")]);
  expect((await all(again)).map(({ message }) => message)).toEqual(["first", "second"]);
  expect((await all(again, first?.cursor ?? null)).map(({ message }) => message)).toEqual(["second"]);
});

test("the oldest lines go when it is full; a reader goes on with those that are left", async () => {
  const journal = new Journal(folder.path);
  const text = "x".repeat(10_000);
  journal.append([entry("first")]);
  const [first] = await all(journal);
  for (let index = 0; index < 2500; index++) journal.append([entry(`${index} ${text}`)]);
  const bytes = readdirSync(folder.path).reduce(
    (sum, name) => sum + statSync(join(folder.path, name)).size,
    0,
  );
  expect(bytes).toBeLessThanOrEqual(16 * 2 ** 20);
  const numbers = (await all(journal, first?.cursor ?? null)).map(({ message }) =>
    Number.parseInt(message, 10),
  );
  expect(numbers.length).toBeGreaterThan(1000);
  expect(numbers).toEqual(
    Array.from({ length: numbers.length }, (_, index) => 2500 - numbers.length + index),
  );
});

test("an aborted reader ends", async () => {
  const stop = new AbortController();
  const read = Array.fromAsync(new Journal(folder.path).read(null, stop.signal, () => false));
  stop.abort();
  expect(await read).toEqual([]);
});
