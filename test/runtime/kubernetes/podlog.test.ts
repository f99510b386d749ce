import { afterEach, describe, expect, test } from "bun:test";
import fc from "fast-check";
import { createBell } from "../../../src/lib/bell.ts";
import { LineSplitter, type TextLine } from "../../../src/runtime/kubernetes/api/streams.ts";
import {
  openPodLog,
  PieceJoiner,
  type PodLog,
  stamped,
} from "../../../src/runtime/kubernetes/logs/podlog.ts";
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

describe("the pieces of a long line", () => {
  const KIB_16 = 16 * 1024;
  const stamps = fc.constantFrom(STAMP, "2026-11-21T23:37:08.5Z ", "2026-11-22T00:37:08.000000000+01:00 ");
  // Around the ends of pieces, and of characters of two bytes that begin at an odd one.
  const texts = fc
    .record({
      begin: fc.constantFrom("", "x", STAMP, `x${STAMP}`),
      fill: fc.constantFrom("a", "é", "𝄞"),
      pieces: fc.integer({ min: 0, max: 3 }),
      over: fc.integer({ min: -40, max: 40 }),
      end: fc.constantFrom("", STAMP, "2026-11-21T23:37"),
    })
    .map(({ begin, fill, pieces, over, end }) => {
      const bytes = Math.max(0, pieces * KIB_16 + over - begin.length);
      return `${begin}${fill.repeat(Math.ceil(bytes / Buffer.byteLength(fill)))}${end}`;
    });

  /** A line as the node keeps it and kubelet sends it, with a time before every piece or the first alone. */
  function sent(stamp: string, text: string, isOld: boolean): Buffer {
    const bytes = Buffer.from(text);
    const parts: Buffer[] = [];
    for (let at = 0; at === 0 || at < bytes.length; at += KIB_16) {
      if (isOld || at === 0) parts.push(Buffer.from(stamp));
      parts.push(bytes.subarray(at, at + KIB_16));
    }
    return Buffer.concat([...parts, Buffer.from("\n")]);
  }

  function joined(bytes: Buffer, cuts: number[]): string {
    const joiner = new PieceJoiner();
    const ends = [...cuts.map((cut) => cut % (bytes.length + 1)).toSorted((a, b) => a - b), bytes.length];
    const pieces = ends.flatMap((end, index) => joiner.push(bytes.subarray(ends[index - 1] ?? 0, end)));
    return Buffer.concat(pieces.map((piece) => piece.bytes)).toString();
  }

  test("are joined to the line that was written, however it comes, and of its text nothing is taken", () => {
    const lines = fc.array(fc.tuple(stamps, texts), { maxLength: 4 });
    fc.assert(
      fc.property(lines, fc.array(fc.nat(), { maxLength: 8 }), (all, cuts) => {
        const old = Buffer.concat(all.map(([stamp, text]) => sent(stamp, text, true)));
        expect(joined(old, cuts)).toBe(all.map(([stamp, text]) => `${stamp}${text}\n`).join(""));
      }),
    );
  });

  test("are no other where kubelet sends one time a line, or none", () => {
    const time = `${"a".repeat(KIB_16 - 1)}${STAMP}`;
    for (const line of [
      `${STAMP}${"a".repeat(50_000)}`,
      `${STAMP}${time}${time}`,
      time,
      `a${time}`,
      "",
      "x",
    ]) {
      const bytes = Buffer.from(`${line}\n${STAMP}after\n`);
      for (let bytesEach = 1; bytesEach <= bytes.length; bytesEach *= 7) {
        const cuts = Array.from({ length: bytes.length / bytesEach }, (_, index) => index * bytesEach);
        expect(joined(bytes, cuts)).toBe(bytes.toString());
      }
    }
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
    const times: [bigint, bigint][] = [];
    let cut = 0;
    while (!log.ended()) {
      for (let line = log.take(); line; line = log.take()) {
        texts.push(line.text);
        times.push([line.atNs, line.untilNs]);
        if (line.isCut) cut++;
      }
      await bell.wait(60_000, new AbortController().signal);
    }
    return { texts, times, cut };
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

  test("has no times within a line of which kubelet sends the pieces with a time each, and tells the last", async () => {
    const text = `x${"é".repeat(150_000)}`;
    const bytes = Buffer.from(text);
    const { texts, times, cut } = await read((stream) => {
      for (let at = 0; at < bytes.length; at += 16 * 1024) {
        const stamp = at === 0 ? STAMP : STAMP.replace("37:08", "37:09");
        stream.send(Buffer.concat([Buffer.from(stamp), bytes.subarray(at, at + 16 * 1024)]));
      }
      stream.send(Buffer.from(`\n${STAMP}after\n`));
      stream.close(1000);
    });
    expect(texts).toEqual([text, "after"]);
    const { atNs } = stamped(STAMP);
    expect(times).toEqual([
      [atNs, atNs + 1_000_000_000n],
      [atNs, atNs],
    ]);
    expect(cut).toBe(0);
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
