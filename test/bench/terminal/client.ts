import { SlowClient } from "../../sockets/slow-client.ts";
import { until } from "../../until.ts";
import { type Line, type Link, open } from "./links.ts";

/*
 * The measuring client: a process of its own, so that neither the server nor the bench is measured with it.
 * Told a job as JSON on standard input, it prints its figures as JSON.
 */

export type Job =
  | { work: "flood"; link: Link; bytes: number }
  /** Types `keys` into each of the links in every round, by turns; prints a line for each link of a round. */
  | { work: "echo"; links: Link[]; keys: number; rounds: number }
  /** Reads a flood until it is killed; prints a line when it has begun. */
  | { work: "drain"; link: Link }
  /** Presses Ctrl-C under `yes`, as a client that reads 1 MB/s, `times` times. */
  | { work: "interrupt"; url: string; times: number }
  /** Each types `bytes` every `everyMs` into an echo. Prints a line after `warmUpMs`; for `forMs` more it is timed. */
  | { work: "many"; links: Link[]; bytes: number; everyMs: number; warmUpMs: number; forMs: number };

/** What is typed before anything is timed: the code of both sides is compiled by then. */
const WARM_UP_KEYS = 5000;
/** So many keys into one link, then the next has its turn: what else the machine does slows all of them alike. */
const TURN_KEYS = 50;
/** Of a turn: they find the caches as the other links have left them, and are not timed. */
const FIRST_KEYS = 5;
const READY = "\x01";
const LINE = "the quick brown fox jumps over the lazy dog, 0123456789 times ..";

/** Puts `program` in the place of the shell, in a raw terminal, and waits until it is there. */
async function run(line: Line, program: string): Promise<void> {
  const ready = Promise.withResolvers<void>();
  line.onData = (piece) => {
    const text = typeof piece === "string" ? piece : Buffer.from(piece).toString("latin1");
    if (text.includes(READY)) ready.resolve();
  };
  line.write(`exec sh -c 'stty raw -echo; printf "\\001"; ${program}'\r`);
  await ready.promise;
}

/** Milliseconds until `bytes` have come. */
async function flood({ link, bytes }: Extract<Job, { work: "flood" }>): Promise<number[]> {
  const line = await open(link);
  await run(line, `read go; yes "${LINE}" | head -c ${bytes}; sleep 1000`);
  const done = Promise.withResolvers<void>();
  let left = bytes;
  line.onData = (_piece, length) => {
    left -= length;
    if (left <= 0) done.resolve();
  };
  const began = performance.now();
  line.write("\n");
  await done.promise;
  const took = performance.now() - began;
  line.close();
  return [took];
}

/** Prints the milliseconds from each keystroke to its echo. */
async function echo({ links, keys, rounds }: Extract<Job, { work: "echo" }>): Promise<void> {
  const lines: Line[] = [];
  for (const link of links) {
    const line = await open(link);
    await run(line, "exec cat");
    lines.push(line);
  }
  for (const line of lines) await type(line, WARM_UP_KEYS);
  for (let round = 0; round < rounds; round++) {
    const times: number[][] = lines.map(() => []);
    for (let typed = 0; typed < keys; typed += TURN_KEYS) {
      for (const [n, line] of lines.entries()) {
        await type(line, FIRST_KEYS);
        times[n]?.push(...(await type(line, Math.min(TURN_KEYS, keys - typed))));
      }
    }
    for (const each of times) console.log(JSON.stringify(each));
  }
  for (const line of lines) line.close();
}

async function type(line: Line, keys: number): Promise<number[]> {
  const times: number[] = [];
  for (let n = 0; n < keys; n++) {
    const { promise, resolve } = Promise.withResolvers<void>();
    line.onData = () => resolve();
    const began = performance.now();
    line.write("k");
    await promise;
    times.push(performance.now() - began);
  }
  return times;
}

/** Milliseconds from each Ctrl-C to the prompt being shown. */
async function interrupt({ url, times }: Extract<Job, { work: "interrupt" }>): Promise<number[]> {
  const client = new SlowClient(url, { bytesPerMs: 1000 });
  await client.shown("$ ");
  const took: number[] = [];
  while (took.length < times) {
    const before = client.shownBytes;
    client.socket.send(Buffer.from("yes\r"));
    await until(() => client.shownBytes - before > 1_000_000);
    const stopped = client.shown("$ ");
    const pressed = performance.now();
    client.socket.send(Buffer.from("\x03"));
    await stopped;
    took.push(performance.now() - pressed);
  }
  return took;
}

async function drain({ link }: Extract<Job, { work: "drain" }>): Promise<never> {
  const line = await open(link);
  await run(line, `exec yes "${LINE}"`);
  const begun = Promise.withResolvers<void>();
  line.onData = () => begun.resolve();
  await begun.promise;
  console.log("[]");
  return await new Promise(() => {});
}

/** Milliseconds from each piece that was typed to the echo of its last byte. */
async function many(job: Extract<Job, { work: "many" }>): Promise<number[]> {
  const { links, bytes, everyMs, warmUpMs, forMs } = job;
  const lines: Line[] = [];
  for (const link of links) {
    const line = await open(link);
    await run(line, "exec cat");
    lines.push(line);
  }
  const piece = "k".repeat(bytes);
  const times: number[] = [];
  const timedFrom = performance.now() + warmUpMs;
  const end = timedFrom + forMs;
  setTimeout(() => console.log(JSON.stringify([])), warmUpMs);
  await Promise.all(
    lines.map(async (line, n) => {
      const sent: number[] = [];
      let came = 0;
      line.onData = (_piece, length) => {
        for (came += length; came >= bytes; came -= bytes) {
          const at = sent.shift() ?? 0;
          if (at >= timedFrom) times.push(performance.now() - at);
        }
      };
      // One after the other, not all at once.
      await Bun.sleep((everyMs * n) / lines.length);
      for (let due = performance.now(); due < end; due += everyMs) {
        await Bun.sleep(Math.max(0, due - performance.now()));
        sent.push(performance.now());
        line.write(piece);
      }
    }),
  );
  return times;
}

async function work(job: Job): Promise<number[] | undefined> {
  switch (job.work) {
    case "flood":
      return flood(job);
    case "echo":
      await echo(job);
      return;
    case "drain":
      return drain(job);
    case "interrupt":
      return interrupt(job);
    case "many":
      return many(job);
  }
}

/** What it has freed stays its own: on some machines to be given it anew takes half of the client's time. */
const KEEPS_MEMORY = { MIMALLOC_PURGE_DELAY: "-1" };

/** A process at work; `next` gives the next line of figures that it prints. */
export function startClient(job: Job) {
  const child = Bun.spawn([process.execPath, import.meta.path], {
    env: { ...process.env, ...KEEPS_MEMORY },
    stdin: Buffer.from(JSON.stringify(job)),
    stdout: "pipe",
  });
  const lines = printed(child.stdout);
  const next = async (): Promise<number[]> => {
    const { value } = await lines.next();
    if (value === undefined) throw new Error(`the ${job.work} client has failed`);
    return JSON.parse(value);
  };
  const stop = async () => {
    child.kill();
    await child.exited;
  };
  return { next, stop, [Symbol.asyncDispose]: stop };
}

async function* printed(stream: ReadableStream<Uint8Array>): AsyncGenerator<string, undefined> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const chunk of stream) {
    const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n");
    rest = lines.pop() ?? "";
    yield* lines;
  }
}

export async function measure(job: Job): Promise<number[]> {
  await using client = startClient(job);
  return await client.next();
}

if (import.meta.main) {
  const figures = await work(JSON.parse(await Bun.stdin.text()));
  if (figures) console.log(JSON.stringify(figures));
  process.exit();
}
