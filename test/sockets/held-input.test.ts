import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { TokenBucket } from "../../src/lib/token-bucket.ts";
import { HeldInput } from "../../src/sockets/held-input.ts";
import { until } from "../until.ts";

const KIB = 1024;

function setUp(perMinute: number) {
  const clock = { now: 0 };
  const now = () => clock.now;
  const written: Uint8Array[] = [];
  const limit: boolean[] = [];
  const state = { flows: true };
  const input = new HeldInput({
    messages: perMinute > 0 ? new TokenBucket({ capacity: perMinute, perMinute, now }) : null,
    write: (bytes) => written.push(bytes.slice()),
    flows: () => state.flows,
    onLimit: (isOver) => limit.push(isOver),
    now,
  });
  return { clock, input, limit, state, text: () => Buffer.concat(written).toString() };
}

describe("the message limit", () => {
  test("is never reached by typing", () => {
    const { clock, input, limit } = setUp(100);
    // Ten keys a second for ten minutes.
    for (let n = 0; n < 6000; n++) {
      clock.now += 100;
      input.push(Buffer.from("k"));
    }
    expect(limit).toEqual([]);
    expect(input.heldBytes).toBe(0);
  });

  test("is not reached by pasting a megabyte, in whatever pieces", () => {
    for (const piece of [1, 1000, 64 * KIB, 1024 * KIB]) {
      const { input, limit } = setUp(100);
      for (let sent = 0; sent < 1024 * KIB; sent += piece) input.push(Buffer.alloc(piece));
      expect(limit).toEqual([]);
    }
  });

  test("counts what comes within 600 ms as one message, and what comes later as another", () => {
    const { clock, input, limit, text } = setUp(2);
    input.push(Buffer.from("a"));
    clock.now = 599;
    input.push(Buffer.from("b"));
    clock.now = 600;
    input.push(Buffer.from("c"));
    expect(text()).toBe("abc");
    clock.now = 1200;
    input.push(Buffer.from("d"));
    expect(limit).toEqual([true]);
    expect(text()).toBe("abc");
  });

  test("counts one message for each 64 KiB begun", () => {
    const { input, limit, text } = setUp(2);
    input.push(Buffer.alloc(64 * KIB));
    input.push(Buffer.alloc(64 * KIB));
    expect(limit).toEqual([]);
    input.push(Buffer.from("x"));
    expect(limit).toEqual([true]);
    expect(text().length).toBe(128 * KIB);
  });

  test("holds back what is over it, tells so once, and writes it in order as the limit allows", () => {
    const { clock, input, limit, text } = setUp(1);
    input.push(Buffer.from("a"));
    clock.now = 1000;
    for (const letter of "bcd") input.push(Buffer.from(letter));
    expect(text()).toBe("a");
    expect(input.heldBytes).toBe(3);
    clock.now = 60_000;
    input.push(Buffer.from("e"));
    expect(text()).toBe("abcde");
    expect(limit).toEqual([true, false]);
  });

  test("lets held input go by itself, also after all was written for a terminal that was left", async () => {
    const written: string[] = [];
    const limit: boolean[] = [];
    const input = new HeldInput({
      messages: new TokenBucket({ capacity: 1, perMinute: 6000 }),
      write: (bytes) => written.push(Buffer.from(bytes).toString()),
      flows: () => true,
      onLimit: (isOver) => limit.push(isOver),
    });
    input.push(Buffer.alloc(64 * KIB));
    input.push(Buffer.from("held"));
    input.flush();
    expect(written.at(-1)).toBe("held");
    input.push(Buffer.alloc(64 * KIB));
    input.push(Buffer.from("held for the next"));
    await until(() => written.at(-1) === "held for the next");
    expect(limit).toEqual([true, false, true, false]);
  });

  test("of nothing lets everything through", () => {
    const { input, limit } = setUp(0);
    for (let n = 0; n < 1000; n++) input.push(Buffer.alloc(64 * KIB));
    expect(limit).toEqual([]);
  });
});

test("waits while the terminal takes nothing, and is written all at once when the client leaves", () => {
  const { input, state, text } = setUp(100);
  state.flows = false;
  input.push(Buffer.from("a"));
  input.push(Buffer.from("b"));
  expect(text()).toBe("");
  state.flows = true;
  input.run();
  expect(text()).toBe("ab");
  state.flows = false;
  input.push(Buffer.from("c"));
  input.flush();
  expect(text()).toBe("abc");
});

test("whatever the times and sizes, nothing is lost or reordered", () => {
  const step = fc.record({
    afterMs: fc.nat(2000),
    bytes: fc.oneof(fc.nat(20), fc.nat(200 * KIB)),
    flows: fc.boolean(),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 30 }), fc.integer({ min: 1, max: 20 }), (steps, perMinute) => {
      const { clock, input, state, text } = setUp(perMinute);
      let expected = "";
      for (const { afterMs, bytes, flows } of steps) {
        clock.now += afterMs;
        state.flows = flows;
        const piece = String.fromCharCode(97 + (expected.length % 26)).repeat(bytes);
        expected += piece;
        input.push(Buffer.from(piece));
        expect(text().length + input.heldBytes).toBe(expected.length);
      }
      input.flush();
      expect(text() === expected).toBe(true);
    }),
    { numRuns: 40 },
  );
});
