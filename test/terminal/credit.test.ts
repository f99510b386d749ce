import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { Credit } from "../../src/terminal/credit.ts";

const KIB = 1024;

/**
 * A link with a bottleneck: sends as much as the credit allows, for `seconds`, and says how old a byte is
 * when it is acknowledged, and how many came through.
 */
function flood({ bytesPerMs: rate, delayMs, jitterMs = 0, ackBytes = 1, seconds = 20 }: Link) {
  const random = fc.sample(fc.double({ min: 0, max: 1, noNaN: true }), { numRuns: 1000, seed: 1 });
  let now = 0;
  const credit = new Credit(0, () => now);
  let sent = 0;
  let freeAt = 0;
  let pending = 0;
  let arrived = 0;
  const acks: { at: number; offset: number; age: number }[] = [];
  const ages: number[] = [];
  while (now < seconds * 1000) {
    while (credit.room > 0) {
      const frame = Math.min(credit.room, credit.frameBytes);
      sent += frame;
      credit.sent(sent);
      freeAt = Math.max(freeAt, now) + frame / (typeof rate === "number" ? rate : rate(now));
      pending += frame;
      if (pending >= ackBytes) {
        const jitter = jitterMs * (random[(sent >> 8) % random.length] ?? 0);
        // What was sent later does not come earlier.
        arrived = Math.max(arrived, freeAt + delayMs + jitter);
        acks.push({ at: arrived, offset: sent, age: arrived - now });
        pending = 0;
      }
    }
    const ack = acks.shift();
    if (!ack) {
      now += 1000;
      credit.stalled();
      continue;
    }
    now = Math.max(now, ack.at);
    ages.push(ack.age);
    credit.acknowledge(ack.offset);
  }
  const settled = ages.slice(Math.floor(ages.length / 4)).sort((a, b) => a - b);
  return { p95Ms: settled[Math.floor(settled.length * 0.95)] ?? Number.NaN, bytesPerMs: sent / now };
}

interface Link {
  /** Perhaps by the time. */
  bytesPerMs: number | ((now: number) => number);
  delayMs: number;
  jitterMs?: number;
  ackBytes?: number;
  seconds?: number;
}

describe("on the way to a client", () => {
  test("that reads 1 MB/s there is less than 80 ms of output, and it is kept busy", () => {
    const { p95Ms, bytesPerMs } = flood({ bytesPerMs: 1000, delayMs: 1 });
    expect(p95Ms).toBeLessThan(80);
    expect(bytesPerMs).toBeGreaterThan(950);
  });

  test("that was fast before there is no more", () => {
    const { p95Ms } = flood({ bytesPerMs: (now) => (now < 1000 ? 50_000 : 1000), delayMs: 1, seconds: 200 });
    expect(p95Ms).toBeLessThan(80);
  });

  test("whose network's delays vary, is kept busy all the same", () => {
    const { bytesPerMs } = flood({ bytesPerMs: 1000, delayMs: 20, jitterMs: 60 });
    expect(bytesPerMs).toBeGreaterThan(900);
  });

  test("there is never more than 512 KiB, and a fast one gets nearly that", () => {
    let now = 0;
    const credit = new Credit(0, () => now);
    let sent = 0;
    let most = 0;
    for (let round = 0; round < 50; round++) {
      const began = sent;
      while (credit.room > 0) {
        sent += credit.room;
        credit.sent(sent);
      }
      most = Math.max(most, sent - began);
      now += 1;
      credit.acknowledge(sent);
    }
    expect(most).toBe(512 * KIB);
  });

  test("far away and fast there is a whole window", () => {
    const { bytesPerMs } = flood({ bytesPerMs: 10_000, delayMs: 200 });
    // 512 KiB every 200 ms is what the limit allows.
    expect(bytesPerMs).toBeGreaterThan((0.8 * 512 * KIB) / 200);
  });

  test("far away and slow it is kept busy", () => {
    const { bytesPerMs } = flood({ bytesPerMs: 1000, delayMs: 200, seconds: 60 });
    expect(bytesPerMs).toBeGreaterThan(800);
  });

  test.each([16, 64, 128])("that acknowledges every %i KiB output never stands still", (kib) => {
    const { bytesPerMs } = flood({ bytesPerMs: 1000, delayMs: 1, ackBytes: kib * KIB });
    expect(bytesPerMs).toBeGreaterThan(850);
  });
});

test("room is the window without what was sent and not acknowledged, whatever is skipped", () => {
  const step = fc.oneof(
    fc.record({ send: fc.integer({ min: 1, max: 5000 }) }),
    fc.record({ skip: fc.integer({ min: 1, max: 5000 }) }),
    fc.record({ acknowledge: fc.double({ min: 0, max: 1, noNaN: true }) }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const credit = new Credit(0, () => 0);
      // Every byte that was really sent, by its end, until it is acknowledged.
      let outstanding: { end: number; bytes: number }[] = [];
      let sent = 0;
      let acknowledged = 0;
      for (const each of steps) {
        if ("send" in each) {
          const bytes = Math.min(each.send, credit.room);
          if (bytes === 0) continue;
          sent += bytes;
          credit.sent(sent);
          outstanding.push({ end: sent, bytes });
        } else if ("skip" in each) {
          sent += each.skip;
          credit.skipped(sent);
        } else {
          const ends = outstanding.map((frame) => frame.end);
          const offset = ends[Math.floor(each.acknowledge * (ends.length - 1))] ?? sent;
          expect(credit.acknowledge(offset)).toBe(true);
          acknowledged = Math.max(acknowledged, offset);
          outstanding = outstanding.filter((frame) => frame.end > acknowledged);
        }
        const onTheWay = outstanding.reduce((sum, frame) => sum + frame.bytes, 0);
        expect(credit.room).toBe(Math.max(0, credit.windowBytes - onTheWay));
      }
      expect(credit.acknowledge(sent + 1)).toBe(false);
    }),
  );
});

/** Frames sent at one time reach a client of 1 MB/s 1 ms later, one after the other, and are acknowledged. */
class Line {
  now = 0;
  sent = 0;
  readonly credit = new Credit(0, () => this.now);
  #freeAt = 0;
  readonly #onTheWay: { end: number; at: number }[] = [];

  send(bytes: number): void {
    this.sent += bytes;
    this.credit.sent(this.sent);
    this.#freeAt = Math.max(this.#freeAt, this.now) + bytes / 1000;
    this.#onTheWay.push({ end: this.sent, at: this.#freeAt + 1 });
  }

  fill(leftBytes = 0): void {
    while (this.credit.room > leftBytes) {
      this.send(Math.min(this.credit.room - leftBytes, this.credit.frameBytes));
    }
  }

  /** The next acknowledgement; false: nothing is on the way. */
  acknowledgeNext(): boolean {
    const frame = this.#onTheWay.shift();
    if (!frame) return false;
    this.now = Math.max(this.now, frame.at);
    this.credit.acknowledge(frame.end);
    return true;
  }

  /** For `ms` it sends whatever it may. */
  flood(ms: number, leftBytes = 0): void {
    const end = this.now + ms;
    do this.fill(leftBytes);
    while (this.now < end && this.acknowledgeNext());
  }

  rest(): void {
    while (this.acknowledgeNext());
    this.now += 20;
  }
}

describe("the window of a client that reads 1 MB/s", () => {
  test("is not widened by one short flood after another", () => {
    const line = new Line();
    for (let n = 0; n < 30; n++) {
      line.flood(400);
      line.rest();
      line.send(2);
      line.rest();
    }
    expect(line.credit.windowBytes).toBeLessThan(80 * KIB);
  });

  test("is as small as before soon after a pause", () => {
    const line = new Line();
    line.flood(5000);
    line.now += 20_000;
    line.flood(3000);
    expect(line.credit.windowBytes).toBeLessThan(80 * KIB);
  });

  test("does not grow while nothing comes through: it has never waited for more", () => {
    const line = new Line();
    line.flood(5000);
    const before = line.credit.windowBytes;
    for (let second = 0; second < 5; second++) line.credit.stalled();
    expect(line.credit.windowBytes).toBe(before);
    // It may be another now.
    for (let second = 0; second < 60; second++) line.credit.stalled();
    expect(line.credit.windowBytes).toBe(512 * KIB);
  });

  test("shrinks though it once acknowledged much at once", () => {
    const line = new Line();
    line.fill();
    line.credit.stalled();
    line.credit.stalled();
    line.credit.stalled();
    line.fill();
    line.now += 10;
    line.credit.acknowledge(line.sent);
    line.flood(10_000);
    expect(line.credit.windowBytes).toBeLessThan(80 * KIB);
  });

  test("grows with text that leaves a few bytes of it: no character fits them", () => {
    const line = new Line();
    for (let n = 0; n < 400; n++) {
      line.fill(3);
      line.now += 1;
      line.credit.acknowledge(line.sent);
    }
    expect(line.credit.windowBytes).toBe(512 * KIB);
  });
});
