import { afterEach, describe, expect, jest, test } from "bun:test";
import { RuntimeRejected, RuntimeUnreachable } from "../../src/runtime/runtime.ts";
import { type AttachRequest, TerminalHub } from "../../src/terminal/hub.ts";
import { until } from "../until.ts";
import { LEFT_SIZE, LeftShell, ScriptedPty } from "./ptys.ts";
import { RecordingViewer } from "./viewers.ts";

const MINUTE = 60_000;

/** A hub whose one environment has `shells`; each is there once `found` resolves. */
function setUp(shells: Record<string, LeftShell>, found: Promise<void> = Promise.resolve()) {
  const asked: string[] = [];
  const started: ScriptedPty[] = [];
  const activity: string[] = [];
  const clock = { now: 1_000_000 };
  const cluster = { isReachable: true };
  const reach = () => {
    if (!cluster.isReachable) throw new RuntimeUnreachable("no answer");
  };
  const hub = new TerminalHub({
    async open(_environmentId, options) {
      const pty = new ScriptedPty(options);
      started.push(pty);
      return pty;
    },
    async held() {
      reach();
      return Object.keys(shells);
    },
    running: () => ["env"],
    async takeUp(_environmentId, id) {
      reach();
      asked.push(id);
      await found;
      return shells[id] ?? null;
    },
    onActivity: (environmentId) => activity.push(environmentId),
    now: () => clock.now,
  });
  async function attach(sessionId: string, changes: Partial<AttachRequest> = {}) {
    const viewer = new RecordingViewer();
    const attached = await hub.attach("env", {
      sessionId,
      offset: null,
      clientId: "client",
      size: null,
      readOnly: false,
      text: false,
      acknowledges: false,
      viewer,
      ...changes,
    });
    viewer.attachment = attached.attachment;
    attached.attachment.start();
    return { ...attached, viewer };
  }
  /** Prints what a shell had printed, as soon as it is taken up. */
  async function replay(shell: LeftShell, text: string) {
    await until(() => shell.pty);
    shell.pty?.print(text);
  }
  return { hub, asked, started, activity, clock, cluster, attach, replay };
}

afterEach(() => {
  jest.useRealTimers();
});

test("what was set before all that a shell still has is right for who joins it, and in the list", async () => {
  const modes = "\x1b[?1049h\x1b[?25l\x1b]2;top\x07";
  const shell = new LeftShell(5, { offset: 4000, modes });
  const { hub, attach, replay } = setUp({ left: shell });
  const [attached] = await Promise.all([attach("left"), replay(shell, "shown")]);
  expect(attached).toMatchObject({ resumed: true, restore: "\x18\x1b[!p\x1b[?1049h\x1b[?25l" });
  expect(await hub.list("env")).toMatchObject([{ id: "left", title: "top" }]);
});

describe("a shell that an earlier server has left", () => {
  test("goes on for its client with the next byte of output, and of input", async () => {
    const input = [{ client: "phone/1", bytes: 7, seq: 3, part: 2 }];
    const shell = new LeftShell(10, { offset: 1000, input });
    const { attach, replay } = setUp({ left: shell });
    const attaching = attach("left", { clientId: "phone", offset: 1004 });
    await replay(shell, "0123456789");
    const { resumed, session, attachment, viewer } = await attaching;
    expect({ resumed, createdAt: session.createdAt, size: session.size }).toEqual({
      resumed: true,
      createdAt: 1,
      size: LEFT_SIZE,
    });
    expect(viewer.text).toBe("456789");
    expect([3, 4].map((seq) => attachment.admit(5, seq))).toEqual(["repeated", "taken"]);
    attachment.write(Buffer.from("abcde"));
    // Two bytes of the fourth message had been typed before.
    expect(shell.pty?.typed).toBe("cde");
  });

  test("is taken up once, by however many, and is known from then on", async () => {
    const shells = { one: new LeftShell(), two: new LeftShell() };
    const { hub, asked, attach } = setUp(shells);
    await Promise.all([attach("one", { clientId: "a" }), attach("one", { clientId: "b" }), hub.list("env")]);
    expect((await hub.list("env")).map(({ id }) => id).sort()).toEqual(["one", "two"]);
    expect(asked.sort()).toEqual(["one", "two"]);
    await hub.end("env", "two");
    expect(shells.two.pty?.isKilled).toBe(true);
    expect(await attach("gone")).toMatchObject({ resumed: false });
  });

  test("is learned of once its cluster can be asked; till then nobody is told that it is gone", async () => {
    const { hub, started, cluster, attach } = setUp({ left: new LeftShell() });
    cluster.isReachable = false;
    expect(await hub.list("env")).toEqual([]);
    await expect(attach("left")).rejects.toThrow(RuntimeUnreachable);
    cluster.isReachable = true;
    expect(await attach("left")).toMatchObject({ resumed: true });
    expect(started).toEqual([]);
  });

  test("is asked for all that it had printed at once, though nobody looks", async () => {
    const part = new Uint8Array(64 * 1024);
    const shell = new LeftShell(512 * part.length);
    const { hub } = setUp({ left: shell });
    const listing = hub.list("env");
    const pty = await until(() => shell.pty);
    let pauses = 0;
    pty.pause = () => void pauses++;
    for (let n = 0; n < 512; n++) pty.print(part);
    expect((await listing).length).toBe(1);
    expect(pauses).toBe(0);
  });

  test("ends when nobody has come for ten minutes, but with a running job; its old output is no use of it", async () => {
    const [idle, busy] = [new LeftShell(3), new LeftShell()];
    const { hub, activity, clock, replay } = setUp({ idle, busy });
    const sweep = hub.sweep();
    await replay(idle, "old");
    await sweep;
    if (busy.pty) busy.pty.running = { foreground: "make", count: 1 };
    const areKilled = () => [idle, busy].map(({ pty }) => pty?.isKilled);
    expect({ activity, killed: areKilled() }).toEqual({ activity: [], killed: [false, false] });
    clock.now += 10 * MINUTE;
    await hub.sweep();
    expect(areKilled()).toEqual([true, false]);
    busy.pty?.print("new");
    expect(activity).toEqual(["env"]);
  });
});

describe("a shell to which the way was lost", () => {
  test("is taken up anew by who comes back, at the next byte", async () => {
    const shell = new LeftShell(5);
    const { hub, attach, replay } = setUp({ left: shell });
    const attaching = attach("left");
    await replay(shell, "hello");
    const { viewer } = await attaching;
    const lost = shell.pty;
    lost?.options.onExit(null);
    expect(viewer.exitCode).toBe(null);
    shell.pty = undefined;
    const again = attach("left", { offset: 3 });
    await replay(shell, "hello");
    expect(await again).toMatchObject({ resumed: true, viewer: { text: "lo" } });
    expect(shell.timesTakenUp).toBe(2);
    expect((await hub.list("env")).length).toBe(1);
  });

  test("and that is gone gives what its client has not seen, and then a new one begins", async () => {
    const shells: Record<string, LeftShell> = {};
    const { started, attach } = setUp(shells);
    const { session } = await attach("gone");
    started[0]?.print("last");
    started[0]?.options.onExit(null);
    const late = await attach(session.id, { offset: 2 });
    expect(late).toMatchObject({ resumed: true, viewer: { text: "st", exitCode: null } });
    expect(await attach(session.id, { offset: 4 })).toMatchObject({ resumed: false });
  });
});

describe("a shell that is being taken up", () => {
  test.each([
    { when: "the server stops", before: "it is found", end: "close", released: true, killed: undefined },
    { when: "the server stops", before: "its output is there", end: "close", released: true, killed: false },
    {
      when: "its environment stops",
      before: "it is found",
      end: "endAll",
      released: true,
      killed: undefined,
    },
    {
      when: "its environment stops",
      before: "its output is there",
      end: "endAll",
      released: false,
      killed: true,
    },
  ] as const)("when $when before $before", async ({ before, end, released, killed }) => {
    const found = Promise.withResolvers<void>();
    const shell = new LeftShell(before === "it is found" ? 0 : 5);
    const { hub, asked, attach } = setUp({ left: shell }, found.promise);
    const attaching = attach("left");
    await until(() => asked.length > 0);
    if (before === "its output is there") {
      found.resolve();
      await until(() => shell.pty);
    }
    hub[end]("env");
    found.resolve();
    shell.pty?.print("hello");
    await expect(attaching).rejects.toThrow(RuntimeRejected);
    expect({ released: shell.isReleased, killed: shell.pty?.isKilled }).toEqual({ released, killed });
    expect(hub.size).toBe(0);
  });

  test("whose output stops coming is let go of after a while, holds up no other, and can be asked for again", async () => {
    jest.useFakeTimers();
    const stuck = new LeftShell(5);
    const { hub, attach } = setUp({ stuck, left: new LeftShell() });
    let failure: unknown;
    const attaching = attach("stuck").catch((error: unknown) => {
      failure = error;
    });
    expect((await attach("left")).resumed).toBe(true);
    const listing = hub.list("env");
    jest.advanceTimersByTime(9_999);
    stuck.pty?.print("hell");
    jest.advanceTimersByTime(9_999);
    expect(stuck.isReleased).toBe(false);
    jest.advanceTimersByTime(1);
    await attaching;
    expect(failure).toBeInstanceOf(RuntimeUnreachable);
    expect(stuck.isReleased).toBe(true);
    expect((await listing).map(({ id }) => id)).toEqual(["left"]);

    jest.useRealTimers();
    stuck.pty = undefined;
    const again = attach("stuck");
    (await until(() => stuck.pty)).print("hello");
    expect((await again).resumed).toBe(true);
  });
});
