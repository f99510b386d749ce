import { afterEach, beforeEach, expect, test } from "bun:test";
import { appendFileSync, readdirSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Journal, type JournalEntry } from "../../../src/runtime/local/journal.ts";
import type { LogLine } from "../../../src/runtime/runtime.ts";
import { until } from "../../until.ts";
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

test.each([
  ["nothing", []],
  ["less than that", ["a"]],
  ["more than that", ["a", "b".repeat(200), "c"]],
])("a reader who had lines that a power cut has taken gets all that came since: %s", async (_what, since) => {
  const journal = new Journal(folder.path);
  journal.append([entry("kept")]);
  journal.append([entry("l".repeat(100))]);
  const [kept, lost] = (await all(journal)).map(({ cursor }) => cursor);
  journal.close();
  truncateSync(join(folder.path, "log.1.jsonl"), Number(kept?.split(":")[1]));
  const again = new Journal(folder.path);
  again.append(since.map(entry));
  const stop = new AbortController();
  const read: string[] = [];
  const reading = (async () => {
    for await (const { message } of again.read(lost ?? null, stop.signal, () => false)) read.push(message);
  })();
  await until(() => read.length === since.length);
  again.append([entry("last")]);
  await until(() => read.length === since.length + 1);
  stop.abort();
  await reading;
  expect(read).toEqual([...since, "last"]);
});

test("a cursor in a file that is not there any more reads from the beginning", async () => {
  const journal = new Journal(folder.path);
  journal.append([entry("first")]);
  expect((await all(journal, "2:10")).map(({ message }) => message)).toEqual(["first"]);
});

test("a disk that is full while it is written costs what was appended then, and nothing else", async () => {
  const journal = new Journal(folder.path);
  journal.append([entry("first")]);
  const ignore = () => {};
  process.on("SIGXFSZ", ignore);
  limitFiles("1000:");
  try {
    expect(() => journal.append([entry("x".repeat(2000))])).toThrow();
  } finally {
    limitFiles("unlimited:");
    process.off("SIGXFSZ", ignore);
  }
  journal.append([entry("next")]);
  expect((await all(journal)).map(({ message }) => message)).toEqual(["first", "next"]);
});

/** Bytes that a file may grow to, as a full disk would have it. */
function limitFiles(bytes: string): void {
  expect(Bun.spawnSync(["prlimit", `--pid=${process.pid}`, `--fsize=${bytes}`]).exitCode).toBe(0);
}

test.each([false, true])(
  "the oldest lines go when it is full; a reader is told how many, opened again: %p",
  async (isOpenedAgain) => {
    const journal = new Journal(folder.path);
    const text = "x".repeat(10_000);
    journal.append([entry("first")]);
    const [first] = await all(journal);
    for (let index = 0; index < 2500; index++) {
      journal.append([entry(`${index} ${text}`)]);
    }
    const bytes = readdirSync(folder.path).reduce(
      (sum, name) => sum + statSync(join(folder.path, name)).size,
      0,
    );
    expect(bytes).toBeLessThanOrEqual(16 * 2 ** 20);
    const full = isOpenedAgain ? new Journal(folder.path) : journal;
    const [gap, ...left] = await all(full, first?.cursor ?? null);
    const numbers = left.map(({ message }) => Number.parseInt(message, 10));
    expect(numbers.length).toBeGreaterThan(1000);
    const missing = 2500 - numbers.length;
    expect(numbers).toEqual(Array.from({ length: numbers.length }, (_, index) => missing + index));
    expect(gap).toMatchObject({ level: "WARN", source: "system" });
    expect(gap?.message).toStartWith(`… ${missing} lines are missing here`);
    expect(await all(full, gap?.cursor ?? null)).toEqual(left);
    expect((await all(full))[0]?.message).toStartWith(`… ${missing + 1} lines are missing here`);
  },
);

test("lines are counted on by a journal that is opened again, and by one whose last file has nothing yet", async () => {
  const messages = Array.from({ length: 3000 }, (_, index) => `${index} ${"x".repeat(10_000)}`);
  const append = (from: number, to: number) => {
    const journal = new Journal(folder.path);
    for (const message of messages.slice(from, to)) journal.append([entry(message)]);
    journal.close();
  };
  append(0, 1000);
  const [first] = await all(new Journal(folder.path));
  append(1000, 1001);
  const last = Math.max(...readdirSync(folder.path).map((name) => Number(name.split(".")[1])));
  writeFileSync(join(folder.path, `log.${last + 1}.jsonl`), "");
  append(1001, 3000);
  const [gap, next] = await all(new Journal(folder.path), first?.cursor ?? null);
  const missing = Number(next?.message.split(" ")[0]) - 1;
  expect(gap?.message).toStartWith(`… ${missing} lines are missing here`);
});

test("a reader that is overtaken is told of what is gone where it is, and whoever writes is told when it has come after", async () => {
  const journal = new Journal(folder.path);
  const put = (from: number) =>
    journal.append(Array.from({ length: 1000 }, (_, index) => entry(`${from + index}`)));
  put(0);
  expect(journal.caughtUp()).toBeNull();
  let over = false;
  const reader = journal.read(null, AbortSignal.timeout(20_000), () => over);
  await reader.next();
  let next = 1;
  let gone = 0;
  for (let from = 1000; from < 600_000; from += 1000) put(from);
  const caughtUp = journal.caughtUp();
  expect(caughtUp).not.toBeNull();
  over = true;
  for await (const { message } of reader) {
    const missing = Number(/^… (\d+) lines are missing/.exec(message)?.[1] ?? 0);
    gone += missing;
    if (missing === 0) expect(Number(message)).toBe(next);
    next += missing || 1;
  }
  expect(next).toBe(600_000);
  expect(gone).toBeGreaterThan(0);
  await caughtUp;
  expect(journal.caughtUp()).toBeNull();
});

test("whoever waits for a late reader goes on when that has left", async () => {
  const journal = new Journal(folder.path);
  const put = (from: number) =>
    journal.append(Array.from({ length: 1000 }, (_, index) => entry(`${from + index}`)));
  put(0);
  const reader = journal.read(null, AbortSignal.timeout(20_000), () => false);
  await reader.next();
  for (let from = 1000; from < 300_000; from += 1000) put(from);
  const caughtUp = journal.caughtUp();
  expect(caughtUp).not.toBeNull();
  await reader.return(undefined);
  await caughtUp;
});

test("a cursor and files of an earlier version, which say nothing of how many lines there were, are read on", async () => {
  writeFileSync(
    join(folder.path, "log.7.jsonl"),
    '[1,"INFO","container",1,"a"]\n[1,"INFO","container",1,"b"]\n',
  );
  const journal = new Journal(folder.path);
  journal.append([entry("c")]);
  expect((await all(journal)).map(({ message }) => message)).toEqual(["a", "b", "c"]);
  expect((await all(journal, "7:29")).map(({ message }) => message)).toEqual(["b", "c"]);
});

test("an aborted reader ends", async () => {
  const stop = new AbortController();
  const read = Array.fromAsync(new Journal(folder.path).read(null, stop.signal, () => false));
  stop.abort();
  expect(await read).toEqual([]);
});
