import { afterAll, afterEach, expect, test } from "bun:test";
import { newId } from "../../../src/lib/ids.ts";
import { type HeldPlace, openHeld } from "../../../src/runtime/kubernetes/held.ts";
import type { Pty } from "../../../src/runtime/runtime.ts";
import { CountedStream } from "../../sockets/cuts.ts";
import { until } from "../../until.ts";
import { ExecServer } from "./exec-server.ts";
import { endHeldSessions } from "./held-session.ts";

/* The way to a holder and back, with the real holder on this machine. */

const server = new ExecServer();
afterEach(async () => {
  Object.assign(server, { refusal: null, refusals: 0, patience: null });
  await endHeldSessions(server.folder);
});
afterAll(() => server.close());

const COUNT = "stty -onlcr; exec seq 0 1000000000";
const LINE = "0123456789abcde\n";

interface Opened {
  pty: Pty;
  /** How many bytes were missing each time. */
  gaps: number[];
  exit: Promise<number | null>;
}

async function open(command: string, onData: (bytes: Uint8Array) => void = () => {}): Promise<Opened> {
  const place: HeldPlace = { connection: server.connection, target: server.target, sessionId: newId() };
  const exit = Promise.withResolvers<number | null>();
  const gaps: number[] = [];
  const pty = await openHeld(place, ["/bin/sh", "-c", command], {
    size: { cols: 80, rows: 24 },
    onData,
    onGap: (bytes) => gaps.push(bytes),
    onExit: exit.resolve,
    onDrain() {},
  });
  if (!pty) throw new Error("not held");
  return { pty, gaps, exit: exit.promise };
}

/** Cuts the connection, and lets no other begin until it was tried a few times. */
async function outage(): Promise<void> {
  Object.assign(server, { refusal: 503, refusals: 0 });
  server.cut();
  await until(() => server.refusals >= 3);
  server.refusal = null;
}

test.each([false, true])(
  "goes on with the next byte of a flood after an outage; viewers slow: %p",
  async (isSlow) => {
    const stream = new CountedStream();
    const { pty, gaps, exit } = await open(COUNT, (bytes) => stream.push(bytes));
    for (let n = 0; n < 3; n++) {
      const seen = stream.next;
      await until(() => stream.next > seen + 1000);
      if (isSlow) pty.pause();
      await outage();
      pty.resume();
    }
    const seen = stream.next;
    await until(() => stream.next > seen + 1000);
    pty.kill();
    expect(await exit).toBeGreaterThan(128);
    expect(gaps).toEqual([]);
  },
);

test("says how much is missing when it was away for too long, goes on, and can be ended", async () => {
  server.patience = 0;
  let offset = 0;
  let wrong = 0;
  const { pty, gaps, exit } = await open(`stty -onlcr; exec yes ${LINE.trim()}`, (bytes) => {
    const first = (offset + gaps.reduce((sum, gap) => sum + gap, 0)) % LINE.length;
    if (
      !LINE.repeat(2)
        .slice(first)
        .startsWith(Buffer.from(bytes.slice(0, 8)).toString())
    )
      wrong += 1;
    offset += bytes.length;
  });
  await until(() => offset > 1_000_000);
  await outage();
  const seen = offset;
  await until(() => gaps.length > 0 && offset > seen + 1_000_000);
  expect({ wrong, gaps: gaps.length }).toEqual({ wrong: 0, gaps: 1 });
  pty.kill();
  expect(await exit).toBeGreaterThan(128);
});
