import { afterEach, describe, expect, jest, test } from "bun:test";
import type { Attachment } from "../../src/terminal/attachment.ts";
import { TERMINAL_LIMITS } from "../../src/terminal/limits.ts";
import { Session } from "../../src/terminal/session.ts";
import { until } from "../until.ts";
import { LeftShell, ScriptedPty } from "./ptys.ts";
import { RecordingViewer } from "./viewers.ts";

const { unseenBurstBytes, returnMs } = TERMINAL_LIMITS;

function newSession(held?: LeftShell): Session {
  return new Session({
    id: "session",
    environmentId: "env",
    size: { cols: 80, rows: 24 },
    now: Date.now,
    ...(held ? { held } : {}),
    onActivity: () => {},
    onBytes: () => {},
    onLost: () => {},
  });
}

async function started(): Promise<{ session: Session; pty: ScriptedPty }> {
  const session = newSession();
  const { promise, resolve } = Promise.withResolvers<ScriptedPty>();
  await session.start(async (options) => {
    const pty = new ScriptedPty(options);
    resolve(pty);
    return pty;
  });
  return { session, pty: await promise };
}

function attach(session: Session): Attachment {
  const viewer = new RecordingViewer();
  const attachment = session.attach({
    viewer,
    offset: session.ring.end,
    text: false,
    acknowledges: false,
    readOnly: false,
    clientId: "client",
    size: null,
  });
  viewer.attachment = attachment;
  viewer.expects = attachment.offset;
  attachment.start();
  return attachment;
}

/** The compiler believes that what was seen stays so. */
function isPaused(pty: ScriptedPty | undefined): boolean | undefined {
  return pty?.isPaused;
}

describe("a flood that nobody sees", () => {
  /** More than may be printed unseen, however much of that comes back meanwhile. */
  const flood = (pty: ScriptedPty) => {
    const piece = new Uint8Array(256 * 1024);
    for (let printed = 0; printed <= 4 * unseenBurstBytes && !pty.isPaused; printed += piece.length) {
      pty.print(piece);
    }
  };

  test("rests once it has had its burst, and goes on by itself", async () => {
    const { pty } = await started();
    flood(pty);
    expect(isPaused(pty)).toBeTrue();
    await until(() => !isPaused(pty));
  });

  test.each([
    ["someone attaches", attach],
    ["it is ended", (session: Session) => session.kill()],
  ])("goes on at once when %s", async (_, act) => {
    const { session, pty } = await started();
    flood(pty);
    act(session);
    expect(isPaused(pty)).toBeFalse();
  });

  test("rests in no case while someone is attached who keeps up", async () => {
    const { session, pty } = await started();
    attach(session);
    flood(pty);
    expect(isPaused(pty)).toBeFalse();
  });
});

describe("with a clock of the test's own", () => {
  afterEach(() => {
    jest.useRealTimers();
  });

  test("a flood that nobody sees is read at 4 MiB/s after a burst of 16 MiB", async () => {
    jest.useFakeTimers();
    const { pty } = await started();
    const piece = new Uint8Array(64 * 1024);
    let printed = 0;
    for (let ms = 0; ms < 10_000; ms += 10) {
      for (let isOver = pty.isPaused; !isOver; printed += piece.length) {
        // Of what is on its way when it is held up one piece comes after that.
        isOver = pty.isPaused;
        pty.print(piece);
      }
      jest.advanceTimersByTime(10);
    }
    const mib = printed / 1024 / 1024;
    expect(mib).toBeGreaterThan(55);
    expect(mib).toBeLessThan(57);
  });

  test("a shell that is taken up prints on when someone is attached, or has had the time to come back", async () => {
    for (const comesBack of [true, false]) {
      const shell = new LeftShell("one two".length);
      const session = newSession(shell);
      jest.useFakeTimers();
      const resumed = session.resume(shell);
      shell.pty?.print("one two");
      await resumed;
      expect(isPaused(shell.pty)).toBeTrue();
      if (comesBack) attach(session);
      else jest.advanceTimersByTime(returnMs);
      expect(isPaused(shell.pty)).toBeFalse();
      jest.useRealTimers();
    }
  });
});
