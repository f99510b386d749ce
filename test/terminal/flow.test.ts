import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { type AttachRequest, TerminalHub } from "../../src/terminal/hub.ts";
import { until } from "../until.ts";
import { ScriptedPty } from "./ptys.ts";
import { RecordingViewer } from "./viewers.ts";

const KIB = 1024;
const MIB = 1024 * KIB;

async function setUp() {
  let pty: ScriptedPty | undefined;
  const hub = new TerminalHub({
    open: async (_environmentId, options) => {
      pty = new ScriptedPty(options);
      return pty;
    },
  });
  let sessionId: string | null = null;
  let clients = 0;
  async function join(changes: Partial<AttachRequest> = {}) {
    const viewer = new RecordingViewer();
    const attached = await hub.attach("env", {
      sessionId,
      offset: null,
      clientId: String(++clients),
      size: null,
      readOnly: false,
      text: false,
      acknowledges: false,
      viewer,
      ...changes,
    });
    sessionId = attached.session.id;
    viewer.attachment = attached.attachment;
    viewer.expects = attached.attachment.offset;
    attached.attachment.start();
    return { viewer, attachment: attached.attachment, session: attached.session };
  }
  const first = await join();
  if (!pty) throw new Error("no PTY was opened");
  return { ...first, join, pty };
}

/** The compiler believes that what was seen stays so. */
function isPaused(pty: ScriptedPty): boolean {
  return pty.isPaused;
}

/** Numbered output: every byte says where it belongs. */
function counted(from: number, length: number): Uint8Array {
  return Uint8Array.from({ length }, (_, n) => (from + n) % 251);
}

describe("flow control", () => {
  test("holds the PTY up when its only reader is slow, and lets it go on when that has caught up", async () => {
    const { viewer, pty, session } = await setUp();
    viewer.isStuck = true;
    let printed = 0;
    while (!pty.isPaused && printed < 4 * MIB) {
      pty.print(counted(printed, 16 * KIB));
      printed += 16 * KIB;
    }
    expect(isPaused(pty)).toBe(true);
    expect(printed).toBeLessThan(MIB);
    while (viewer.unsentBytes > 0) viewer.drain();
    expect(pty.isPaused).toBe(false);
    expect(viewer.receivedBytes).toBe(session.ring.end);
    expect(viewer.gaps).toEqual([]);
  });

  test("never holds up three that read for one that reads nothing, which is told of its gap", async () => {
    const { viewer: stuck, pty, join } = await setUp();
    stuck.isStuck = true;
    const others = [await join(), await join({ text: true }), await join({ acknowledges: true })];
    const acknowledging = others[2];
    if (acknowledging) acknowledging.viewer.onOutput = (next) => acknowledging.attachment.acknowledge(next);
    for (const { viewer } of [...others, { viewer: stuck }]) viewer.keepsBytes = false;
    const line = Buffer.from(`${"x".repeat(99)}\n`.repeat(100));
    for (let n = 0; n < 5000; n++) {
      pty.print(line);
      expect(isPaused(pty)).toBe(false);
    }
    const total = 5000 * line.length;
    await until(() => others.every(({ viewer }) => viewer.receivedBytes === total));
    expect(stuck.receivedBytes).toBeLessThan(MIB);

    stuck.isStuck = false;
    stuck.drain();
    expect(stuck.gaps.length).toBe(1);
    expect(stuck.receivedBytes + (stuck.gaps[0]?.bytes ?? 0)).toBe(total);
  });

  test("gives pieces of a flood together, at the latest with the turn, and small ones at once", async () => {
    const { viewer, pty, session } = await setUp();
    const sent = () => viewer.parts.splice(0).map(({ length }) => length);
    for (let n = 0; n < 33; n++) pty.print(counted(n * 4 * KIB, 4 * KIB));
    expect(sent()).toEqual([64 * KIB, 64 * KIB]);
    await until(() => viewer.receivedBytes === 33 * 4 * KIB);
    expect(sent()).toEqual([4 * KIB]);
    pty.print(counted(0, 4 * KIB));
    expect(sent()).toEqual([]);
    pty.print("$ ");
    expect(sent()).toEqual([4 * KIB + 2]);
    pty.print("k");
    expect(sent()).toEqual([1]);
    // What waits for more comes before a gap, and before an exit.
    pty.print(counted(0, 4 * KIB));
    pty.options.onGap?.(100, "");
    expect(sent()).toEqual([4 * KIB]);
    expect(viewer.gaps.map(({ bytes }) => bytes)).toEqual([100]);
    pty.print(counted(0, 4 * KIB));
    pty.options.onExit(0);
    expect(sent()).toEqual([4 * KIB]);
    expect(viewer.exitCode).toBe(0);
    expect(viewer.receivedBytes + 100).toBe(session.ring.end);
  });

  test("lets the PTY run when nobody is attached", async () => {
    const { viewer, attachment, pty, join } = await setUp();
    viewer.isStuck = true;
    while (!pty.isPaused) pty.print(counted(0, 16 * KIB));
    attachment.detach();
    expect(isPaused(pty)).toBe(false);
    for (let n = 0; n < 100; n++) pty.print(counted(0, 64 * KIB));
    expect(isPaused(pty)).toBe(false);
    const back = await join({ offset: viewer.expects ?? 0 });
    expect(back.viewer.gaps.length).toBe(1);
    expect(back.viewer.receivedBytes).toBe(MIB);
  });

  test("sends at most 512 KiB to a client that does not acknowledge", async () => {
    const { attachment, pty, join } = await setUp();
    attachment.detach();
    const { viewer } = await join({ acknowledges: true });
    for (let n = 0; n < 8; n++) pty.print(counted(0, 64 * KIB));
    expect(viewer.receivedBytes).toBeLessThanOrEqual(512 * KIB);
    expect(pty.isPaused).toBe(true);
  });

  test("takes the first acknowledgement of a client that need not acknowledge as a promise of more", async () => {
    const { viewer, attachment, pty } = await setUp();
    pty.print(counted(0, 128 * KIB));
    expect(attachment.acknowledge(128 * KIB)).toBe(true);
    expect(attachment.acknowledge(128 * KIB + 1)).toBe(false);
    for (let n = 0; n < 8; n++) pty.print(counted(0, 64 * KIB));
    expect(viewer.receivedBytes).toBeLessThanOrEqual(384 * KIB);
  });

  test("counts what is on the way when a client begins to acknowledge late", async () => {
    const { viewer, attachment, pty } = await setUp();
    pty.print(counted(0, 900 * KIB));
    expect(attachment.acknowledge(10 * KIB)).toBe(true);
    pty.print(counted(0, 64 * KIB));
    expect(viewer.receivedBytes).toBe(900 * KIB);
    attachment.acknowledge(900 * KIB);
    expect(viewer.receivedBytes).toBe(964 * KIB);
  });

  test("gives more to a client that waits for it, and repeats itself meanwhile", async () => {
    const { viewer, attachment, pty, join } = await setUp();
    attachment.detach();
    const waiting = await join({ acknowledges: true });
    expect(viewer.receivedBytes).toBe(0);
    for (let n = 0; n < 4; n++) pty.print(counted(0, 64 * KIB));
    const first = waiting.viewer.receivedBytes;
    await until(() => {
      waiting.attachment.acknowledge(0);
      return waiting.viewer.receivedBytes > first;
    });
  });

  test("survives one read of more than the whole scrollback", async () => {
    const { viewer, pty } = await setUp();
    pty.print(new Uint8Array(3 * MIB));
    expect(viewer.receivedBytes).toBe(3 * MIB);
    expect(viewer.gaps).toEqual([]);
  });
});

test("whatever is printed, held back, acknowledged, cut and resumed, every byte comes once or is told missing", async () => {
  const step = fc.oneof(
    { weight: 4, arbitrary: fc.record({ print: fc.integer({ min: 1, max: 300 * KIB }) }) },
    { weight: 2, arbitrary: fc.record({ drain: fc.nat(2) }) },
    {
      weight: 2,
      arbitrary: fc.record({ acknowledge: fc.nat(2), part: fc.double({ min: 0, max: 1, noNaN: true }) }),
    },
    { weight: 1, arbitrary: fc.record({ stick: fc.nat(2), stuck: fc.boolean() }) },
    { weight: 1, arbitrary: fc.record({ resume: fc.nat(2) }) },
  );
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 40 }), async (steps) => {
      const { attachment, pty, join, session } = await setUp();
      attachment.detach();
      const viewers = [await join(), await join({ acknowledges: true }), await join({ acknowledges: true })];
      for (const each of steps) {
        if ("print" in each) pty.print(counted(session.ring.end, each.print));
        else if ("drain" in each) viewers[each.drain]?.viewer.drain();
        else if ("acknowledge" in each) {
          const one = viewers[each.acknowledge];
          if (one) one.attachment.acknowledge(Math.floor((one.viewer.expects ?? 0) * each.part));
        } else if ("stick" in each) {
          const one = viewers[each.stick];
          if (one) one.viewer.isStuck = each.stuck;
        } else {
          const one = viewers[each.resume];
          if (!one) continue;
          one.attachment.detach();
          viewers[each.resume] = await join({ offset: one.viewer.expects, acknowledges: each.resume > 0 });
        }
        for (const { viewer } of viewers) {
          // RecordingViewer checks that offsets and gaps meet; here that the bytes are those of the offsets.
          let offset = (viewer.expects ?? 0) - viewer.receivedBytes;
          if (viewer.gaps.length === 0) {
            for (const part of viewer.parts) {
              expect(part[0]).toBe(offset % 251);
              expect(part.at(-1)).toBe((offset + part.length - 1) % 251);
              offset += part.length;
            }
          }
          expect(viewer.expects).toBeLessThanOrEqual(session.ring.end);
        }
      }
      for (let round = 0; round < 200; round++) {
        for (const { viewer, attachment: each } of viewers) {
          viewer.isStuck = false;
          viewer.drain();
          each.acknowledge(viewer.expects ?? 0);
        }
      }
      expect(viewers.map(({ viewer }) => viewer.expects)).toEqual(viewers.map(() => session.ring.end));
      expect(pty.isPaused).toBe(false);
    }),
    { numRuns: 60 },
  );
});
