import { afterEach, describe, expect, test } from "bun:test";
import fc from "fast-check";
import { createBell } from "../../../src/runtime/kubernetes/bell.ts";
import { openPodLog, type PodLog } from "../../../src/runtime/kubernetes/podlog.ts";
import { LineSplitter, type TextLine } from "../../../src/runtime/kubernetes/streams.ts";
import { SilentStandIn, StandIn, type Stream } from "./stand-in.ts";

const TARGET = { namespace: "n", pod: "p", container: "c" };
const STAMP = "2026-11-21T23:37:08.000000000Z ";

function splitAt(text: string, cuts: number[]): TextLine[] {
  const splitter = new LineSplitter(8);
  const ends = [...cuts.map((cut) => cut % (text.length + 1)).toSorted((a, b) => a - b), text.length];
  return ends.flatMap((end, index) => splitter.push(text.slice(ends[index - 1] ?? 0, end)));
}

describe("lines", () => {
  const texts = fc
    .array(fc.constantFrom("a", "b", "\n", "𝄞"), { maxLength: 60 })
    .map((parts) => parts.join(""));

  test("are the same however their text is cut into pieces, and none is longer than the limit", () => {
    fc.assert(
      fc.property(texts, fc.array(fc.nat(), { maxLength: 10 }), (text, cuts) => {
        const expected = text.split("\n").map((line) => ({
          text: line.length > 8 ? line.slice(0, line.charCodeAt(7) === 0xd834 ? 7 : 8) : line,
          isCut: line.length > 8,
        }));
        // The last one has not ended: it is only known when it is too long.
        if (!expected.at(-1)?.isCut) expected.pop();
        expect(splitAt(text, cuts)).toEqual(expected);
      }),
    );
  });
});

describe("a container's log", () => {
  let standIn: StandIn | SilentStandIn | undefined;
  let log: PodLog | undefined;
  afterEach(async () => {
    log?.close();
    await standIn?.close();
  });

  /** Everything up to the end of a log that is sent so. */
  async function read(send: (stream: Stream) => void) {
    standIn = new StandIn({ stream: () => send });
    const bell = createBell();
    log = await openPodLog(standIn.connection, TARGET, { wake: bell.ring });
    const texts: string[] = [];
    let cut = 0;
    while (!log.ended()) {
      for (let line = log.take(); line; line = log.take()) {
        texts.push(line.text);
        if (line.isCut) cut++;
      }
      await bell.wait(60_000, new AbortController().signal);
    }
    return { texts, cut };
  }

  test("gives of a line that does not end for 64 MiB the beginning, and what comes after", async () => {
    const { texts, cut } = await read((stream) => {
      stream.send(Buffer.from(STAMP));
      const zeros = Buffer.alloc(32 * 1024);
      for (let sent = 0; sent < 64 * 2 ** 20; sent += zeros.length) stream.send(zeros);
      stream.send(Buffer.from(`\n${STAMP}after\n`));
      stream.close(1000);
    });
    expect(cut).toBe(1);
    expect(texts.map(({ length }) => length)).toEqual([256 * 1024 - STAMP.length, 5]);
    expect(texts[1]).toBe("after");
  });

  test("goes on for any number of lines", async () => {
    const lines = 100_000;
    const { texts } = await read((stream) => {
      for (let sent = 0; sent < lines; sent += 100) stream.send(Buffer.from(`${STAMP}line\n`.repeat(100)));
      stream.close(1000);
    });
    expect(texts.length).toBe(lines);
  });

  test("has ended when the cluster has fallen silent", async () => {
    standIn = new SilentStandIn();
    const bell = createBell();
    log = await openPodLog(standIn.connection, TARGET, { wake: bell.ring, pingEveryMs: 10 });
    await bell.wait(20_000, new AbortController().signal);
    expect(log.ended()).toBe(true);
  });
});
