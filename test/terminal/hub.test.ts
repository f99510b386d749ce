import { describe, expect, jest, test } from "bun:test";
import {
  type Pty,
  RuntimeRejected,
  RuntimeUnreachable,
  type TerminalOptions,
} from "../../src/runtime/runtime.ts";
import { type AttachRequest, TerminalHub } from "../../src/terminal/hub.ts";
import { TERMINAL_LIMITS } from "../../src/terminal/limits.ts";
import { ScriptedPty } from "./ptys.ts";
import { RecordingViewer } from "./viewers.ts";

const MINUTE = 60_000;
let clients = 0;

function request(changes: Partial<AttachRequest> = {}): AttachRequest {
  return {
    sessionId: null,
    offset: null,
    clientId: `client-${++clients}`,
    size: null,
    readOnly: false,
    text: false,
    acknowledges: false,
    viewer: new RecordingViewer(),
    ...changes,
  };
}

function setUp({ open }: { open?: (options: TerminalOptions) => Promise<Pty> } = {}) {
  const ptys: ScriptedPty[] = [];
  const clock = { now: 1_000_000 };
  const activity: string[] = [];
  const hub = new TerminalHub({
    open: async (_environmentId, options) => {
      if (open) return await open(options);
      const pty = new ScriptedPty(options);
      ptys.push(pty);
      return pty;
    },
    onActivity: (environmentId) => activity.push(environmentId),
    now: () => clock.now,
  });
  async function attach(changes: Partial<AttachRequest> = {}, environmentId = "env") {
    const viewer = new RecordingViewer();
    const attached = await hub.attach(environmentId, request({ viewer, ...changes }));
    viewer.attachment = attached.attachment;
    attached.attachment.start();
    return { ...attached, viewer };
  }
  const pty = (n = 0) => {
    const found = ptys[n];
    if (!found) throw new Error(`there is no PTY ${n}`);
    return found;
  };
  return { hub, ptys, pty, clock, activity, attach };
}

describe("a session", () => {
  test("gives what it prints, takes what is typed, and tells its exit after its last output", async () => {
    const { attach, pty } = setUp();
    const { attachment, viewer } = await attach({ size: { cols: 100, rows: 30 } });
    pty().print("hello ");
    expect(attachment.admit(3)).toBe("taken");
    attachment.write(Buffer.from("ls\r"));
    pty().print("bye");
    pty().options.onExit(3);
    expect(viewer.text).toBe("hello bye");
    expect(pty().typed).toBe("ls\r");
    expect(pty().sizes).toEqual([{ cols: 100, rows: 30 }]);
    expect(viewer.exitCode).toBe(3);
  });

  test("is resumed at exactly the next byte", async () => {
    const { attach, pty } = setUp();
    const first = await attach();
    pty().print("0123456789");
    first.attachment.detach();
    pty().print("abc");
    const second = await attach({ sessionId: first.session.id, offset: 10 });
    expect(second).toMatchObject({ resumed: true, restore: null });
    expect(second.viewer.text).toBe("abc");
    const third = await attach({ sessionId: first.session.id });
    expect(third.viewer.text).toBe("0123456789abc");
  });

  test("says how many bytes are gone, what modes they left, and goes on with what there is", async () => {
    const { attach, pty } = setUp();
    const { attachment, session } = await attach();
    attachment.detach();
    pty().print("\x1b[?1049h\x1b[?2004h");
    for (let n = 0; n < 20; n++) pty().print(new Uint8Array(100_000).fill(65 + n));
    const start = session.ring.end - 1024 * 1024;

    const late = await attach({ sessionId: session.id, offset: 5 });
    expect(late.viewer.gaps).toEqual([
      { bytes: start - 5, offset: start, restore: "\x18\x1b[!p\x1b[?1049h\x1b[?2004h" },
    ]);
    expect(late.viewer.bytes.length).toBe(1024 * 1024);

    const fresh = await attach({ sessionId: session.id });
    expect(fresh.viewer.gaps).toEqual([]);
    expect(fresh.restore).toBe("\x18\x1b[!p\x1b[?1049h\x1b[?2004h");
  });

  test.each([
    ["bytes", false],
    ["text, which begins with a whole character", true],
  ])("whose scrollback begins within a character is given as %s", async (_what, text) => {
    const { attach, pty } = setUp();
    const { attachment, session } = await attach();
    attachment.detach();
    pty().print("€".repeat(400_000));
    for (let n = 0; n < 3; n++) {
      const { start } = session.ring;
      const whole = text ? Math.ceil(start / 3) * 3 : start;
      const late = await attach({ sessionId: session.id, offset: 5, text });
      expect(late.viewer.gaps).toMatchObject([{ bytes: whole - 5, offset: whole }]);
      const fresh = await attach({ sessionId: session.id, text });
      expect(fresh.attachment.offset).toBe(session.ring.end);
      expect(fresh.viewer.bytes.length).toBe(session.ring.end - whole);
      if (text) expect(late.viewer.text + fresh.viewer.text).not.toContain("\ufffd");
      late.attachment.detach();
      fresh.attachment.detach();
      pty().print(`${"€".repeat(33)}x`);
    }
  });

  test("as text skips what remains of a character after output was lost on the way, and no more than that", async () => {
    const { attach, pty } = setUp();
    const { viewer, attachment } = await attach({ text: true });
    pty().print("a");
    pty().options.onGap?.(100, "");
    for (const byte of Buffer.from("€b").subarray(1)) pty().print(new Uint8Array([byte]));
    expect(viewer.text).toBe("ab");
    expect(viewer.gaps.reduce((sum, { bytes }) => sum + bytes, 0)).toBe(102);
    pty().options.onGap?.(100, "");
    pty().print(new Uint8Array(10).fill(0x80));
    expect(viewer.text).toBe(`ab${"\ufffd".repeat(7)}`);
    expect(attachment.offset).toBe(1 + 100 + 3 + 100 + 10);
  });

  test("that has ended with the rest of a character says so to whoever reads it as text", async () => {
    const { attach, pty } = setUp();
    const { session, attachment } = await attach();
    attachment.detach();
    pty().options.onGap?.(10, "");
    pty().print(new Uint8Array([0x82, 0xac]));
    pty().options.onExit(0);
    const { viewer } = await attach({ sessionId: session.id, offset: 3, text: true });
    expect(viewer).toMatchObject({ text: "", exitCode: 0, gaps: [{ bytes: 9, offset: 12 }] });
  });

  test("of which output was lost on the way tells each viewer of one gap, and goes on after it", async () => {
    const { attach, pty } = setUp();
    const quick = await attach();
    const { id } = quick.session;
    const slow = await attach({ sessionId: id });
    slow.viewer.isStuck = true;
    pty().print("\x1b[?2004h");
    pty().print(new Uint8Array(600_000).fill(65));
    pty().options.onGap?.(5_000_000, "");
    pty().print("\x1b[?25");
    pty().options.onGap?.(10, "");
    pty().print("after");
    slow.viewer.drain();
    const late = await attach({ sessionId: id, offset: 4 });
    const end = 8 + 600_000 + 5_000_000 + 5 + 10;
    const restore = "\x18\x1b[!p\x1b[?2004h";
    expect(quick.viewer.gaps.map(({ bytes }) => bytes)).toEqual([5_000_000, 10]);
    expect(slow.viewer.gaps).toEqual([
      { bytes: end - slow.viewer.receivedBytes + "after".length, offset: end, restore },
    ]);
    expect(late.viewer.gaps).toEqual([{ bytes: end - 4, offset: end, restore }]);
    for (const { viewer } of [quick, slow, late]) expect(viewer.text).toEndWith("after");
  });

  test("that is gone is not resumed: a new one begins, and a viewer is refused", async () => {
    const { attach } = setUp();
    const attached = await attach({ sessionId: "0123", offset: 77 });
    expect(attached.resumed).toBe(false);
    expect(attached.attachment.offset).toBe(0);
    await expect(attach({ sessionId: "4567", readOnly: true })).rejects.toThrow("Terminal session not found");
    await expect(attach({ readOnly: true })).rejects.toThrow("Terminal session not found");
    await expect(attach({ sessionId: attached.session.id, readOnly: true }, "other")).rejects.toThrow(
      "not found",
    );
  });

  test("that is gone goes on in one new session for all who shared it", async () => {
    const { attach, hub, pty, ptys } = setUp();
    const { session } = await attach();
    const gone = { sessionId: session.id, isGone: true };
    hub.endAll("env");
    await expect(attach({ ...gone, readOnly: true })).rejects.toThrow("Terminal session not found");

    // Together, while it is being started, …
    const [phone, laptop, viewer] = await Promise.all([
      attach(gone),
      attach({ sessionId: session.id, offset: 7 }),
      attach({ ...gone, readOnly: true }),
    ]);
    pty(1).print("a".repeat(TERMINAL_LIMITS.scrollbackBytes));
    pty(1).print("new");
    // … and later.
    const late = await attach({ sessionId: session.id, offset: 7 });
    const all = [phone, laptop, viewer, late];
    for (const each of all) {
      expect(each.session).toBe(phone.session);
      expect(each.resumed).toBe(false);
      expect(each.viewer.text).toEndWith("anew");
    }
    expect(late.attachment.offset).toBe(late.session.ring.end);
    expect(late.restore).toContain("\x1b[!p");
    expect(ptys).toHaveLength(2);

    // Those of another session, and those that begin anew, are not among them.
    for (const other of [{ sessionId: "other", isGone: true }, {}]) {
      expect((await attach(other)).session).not.toBe(phone.session);
    }
    // With that one gone too, it is again one for all of them.
    pty(1).options.onExit(0);
    const again = await Promise.all([attach(gone), attach(gone)]);
    expect(again[0].session).toBe(again[1].session);
    expect(again[0].session).not.toBe(phone.session);
  });

  test("that is begun for another when the environment ends is nobody's", async () => {
    const opened = Promise.withResolvers<void>();
    const { attach, hub, ptys } = setUp();
    const { session } = await attach();
    const slow = setUp({
      open: async (options) => {
        await opened.promise;
        return new ScriptedPty(options);
      },
    });
    hub.endAll("env");
    const gone = { sessionId: session.id, isGone: true };
    const before = slow.attach(gone);
    slow.hub.endAll("env");
    const after = slow.attach(gone);
    opened.resolve();
    await expect(before).rejects.toThrow("The environment has stopped");
    expect((await after).session.exit).toBeNull();
    expect(ptys).toHaveLength(1);
  });

  test("that ended while its client was away can be resumed for its last output for a minute", async () => {
    const { attach, pty, hub, clock } = setUp();
    const { attachment, session } = await attach();
    pty().print("seen ");
    attachment.detach();
    pty().print("unseen");
    pty().options.onExit(0);
    expect(await hub.list("env")).toEqual([]);

    const again = await attach({ sessionId: session.id, offset: 5 });
    expect(again.viewer.text).toBe("unseen");
    expect(again.viewer.exitCode).toBe(0);

    clock.now += MINUTE;
    await hub.sweep();
    expect((await attach({ sessionId: session.id, offset: 5 })).resumed).toBe(false);
  });

  test("displaces the connection that the same client still seems to have", async () => {
    const { attach, pty } = setUp();
    const old = await attach({ clientId: "phone" });
    expect(old.attachment.admit(1, 1)).toBe("taken");
    old.attachment.write(Buffer.from("a"));
    const anew = await attach({ clientId: "phone", sessionId: old.session.id, offset: 0 });
    expect(old.viewer.wasDisplaced).toBe(true);
    expect(old.session.attached).toBe(1);
    expect(anew.attachment.input).toMatchObject({ seq: 1, bytes: 1 });
    pty().print("x");
    expect(old.viewer.text).toBe("");
    expect(anew.viewer.text).toBe("x");
  });

  test("displaces no connection of the same client in another mode", async () => {
    const { attach } = setUp();
    const editor = await attach({ clientId: "phone" });
    const look = { clientId: "phone", sessionId: editor.session.id, readOnly: true };
    const one = await attach(look);
    const two = await attach(look);
    expect(editor.viewer.wasDisplaced).toBe(false);
    const again = await attach({ ...look, readOnly: false });
    const viewers = [editor, one, two, again].map(({ viewer }) => viewer.wasDisplaced);
    expect(viewers).toEqual([true, true, false, false]);
    expect(editor.session.attached).toBe(2);
  });

  test("takes numbered input once and in order", async () => {
    const { attach, pty } = setUp();
    const { attachment } = await attach();
    const results = [1, 2, 2, 1, 4, 3, 4].map((seq) => {
      const result = attachment.admit(1, seq);
      if (result === "taken") attachment.write(Buffer.from(String(seq)));
      return result;
    });
    expect(results).toEqual(["taken", "taken", "repeated", "repeated", "skipped", "taken", "taken"]);
    expect(pty().typed).toBe("1234");
  });

  test.each<[string, Partial<AttachRequest>]>([
    ["look", { readOnly: true }],
    ["type", {}],
  ])(
    "remembers how far the input of a client that is there has come, however many come to %s and go",
    async (_what, changes) => {
      const { attach, pty } = setUp();
      const laptop = await attach({ clientId: "laptop" });
      const { id } = laptop.session;
      const send = (to: typeof laptop, seq: number) => {
        const result = to.attachment.admit(1, seq);
        if (result === "taken") to.attachment.write(Buffer.from(String(seq)));
        return result;
      };
      expect(send(laptop, 1)).toBe("taken");
      for (let n = 0; n < 100; n++) {
        const other = await attach({ sessionId: id, ...changes });
        if (!other.attachment.readOnly) send(other, 7);
        other.attachment.detach();
      }
      const again = await attach({ clientId: "laptop", sessionId: id });
      expect(laptop.viewer.wasDisplaced).toBe(true);
      expect(again.attachment.input).toMatchObject({ seq: 1, bytes: 1 });
      expect([send(again, 1), send(again, 2)]).toEqual(["repeated", "taken"]);
      expect(pty().typed.replaceAll("7", "")).toBe("12");
    },
  );

  test("forgets of those that are gone the one that typed longest ago, not one that only looked on", async () => {
    const { attach } = setUp();
    const type = async (clientId: string, length: number) => {
      const { attachment } = await attach({ clientId, sessionId: id });
      attachment.admit(length);
      attachment.write(Buffer.alloc(length, "x"));
      return attachment;
    };
    const { id } = (await attach()).session;
    const early = await type("early", 1);
    const late = await type("late", 1);
    early.admit(1);
    early.write(Buffer.from("y"));
    for (const each of [early, late]) each.detach();
    for (let n = 0; n < 100; n++) (await attach({ sessionId: id })).attachment.detach();
    for (let n = 0; n < TERMINAL_LIMITS.inputStreams - 2; n++) (await type(`other-${n}`, 1)).detach();
    const [back, forgotten] = [await type("early", 0), await type("late", 0)];
    expect([back.input.bytes, forgotten.input.bytes]).toEqual([2, 0]);
  });

  test("keeps input in order while the far side is held up, and refuses more than a limit", async () => {
    const { attach, pty } = setUp();
    const { attachment, viewer } = await attach();
    pty().takesInput = false;
    const type = (text: string) => {
      const result = attachment.admit(text.length);
      if (result === "taken") attachment.write(Buffer.from(text));
      return result;
    };
    type("a");
    expect(attachment.inputFlows).toBe(false);
    type("b");
    type("c");
    expect(pty().typed).toBe("a");
    for (let n = 0; n < 15; n++) expect(type("x".repeat(1024 * 1024))).toBe("taken");
    expect(type("x".repeat(1024 * 1024))).toBe("refused");
    pty().drain();
    expect(pty().typed.slice(0, 4)).toBe("abcx");
    expect(viewer.timesInputFlowed).toBe(1);
    expect(type("x".repeat(1024 * 1024))).toBe("taken");
    expect(pty().typed.length).toBe(16 * 1024 * 1024 + 3);
  });

  test("is as large as who last typed or changed its own size has it; viewers decide nothing", async () => {
    const { attach, pty } = setUp();
    const laptop = await attach({ size: { cols: 120, rows: 40 } });
    const { id } = laptop.session;
    const phone = await attach({ sessionId: id, size: { cols: 40, rows: 20 } });
    const tv = await attach({ sessionId: id, size: { cols: 300, rows: 90 }, readOnly: true });
    laptop.attachment.admit(1);
    laptop.attachment.write(Buffer.from("l"));
    tv.attachment.resize({ cols: 301, rows: 90 });
    phone.attachment.resize({ cols: 41, rows: 20 });
    expect(pty().sizes).toEqual([
      { cols: 120, rows: 40 },
      { cols: 40, rows: 20 },
      { cols: 120, rows: 40 },
      { cols: 41, rows: 20 },
    ]);
    expect(tv.viewer.sizes).toEqual([
      { cols: 120, rows: 40 },
      { cols: 41, rows: 20 },
    ]);
    expect(tv.attachment.admit(1)).toBe("refused");
  });

  test("tells of activity in both directions, at most once a second", async () => {
    const { attach, pty, activity, clock } = setUp();
    const { attachment } = await attach();
    pty().print("a");
    pty().print("b");
    expect(activity).toEqual(["env"]);
    clock.now += 1000;
    attachment.admit(1);
    attachment.write(Buffer.from("c"));
    expect(activity).toEqual(["env", "env"]);
  });
});

describe("sessions of an environment", () => {
  test("are listed, newest first, with title, command, size and viewers", async () => {
    const { hub, attach, pty } = setUp();
    const began = Date.now();
    const first = await attach({ size: { cols: 80, rows: 24 } });
    const second = await attach();
    pty(0).print("\x1b]0;notes\x07");
    pty(1).running = { foreground: "make", count: 3 };
    second.attachment.detach();
    const size = { cols: 80, rows: 24 };
    expect(await hub.list("env")).toEqual([
      {
        id: second.session.id,
        title: null,
        command: "make",
        size,
        attached: 0,
        createdAt: expect.any(Number),
      },
      {
        id: first.session.id,
        title: "notes",
        command: null,
        size,
        attached: 1,
        createdAt: expect.any(Number),
      },
    ]);
    expect(first.session.createdAt).toBeWithin(began, Date.now() + 1);
    expect(await hub.list("other")).toEqual([]);
  });

  test("end one by one or all at once", async () => {
    const { hub, attach, ptys } = setUp();
    const [one, two] = [await attach(), await attach()];
    const other = await attach({}, "other");
    await hub.end("env", one.session.id);
    expect(one.viewer.exitCode).toBe(129);
    await expect(hub.end("env", one.session.id)).rejects.toThrow("Terminal session not found");
    await expect(hub.end("env", other.session.id)).rejects.toThrow("Terminal session not found");
    hub.endAll("env");
    expect(two.viewer.exitCode).toBe(129);
    expect(ptys.map((pty) => pty.isKilled)).toEqual([true, true, false]);
    expect(hub.size).toBe(1);
  });

  test.each<[string, (pty: ScriptedPty) => void]>([
    ["does not end in time", () => jest.advanceTimersByTime(5000)],
    ["is lost while it ends", (pty) => pty.options.onExit(null)],
  ])("end for good, also when the shell %s: its viewers need no other", async (_what, happen) => {
    jest.useFakeTimers();
    try {
      const { hub, attach, pty } = setUp();
      const { session, viewer } = await attach();
      pty().kill = () => {};
      await hub.end("env", session.id);
      expect(viewer.exitCode).toBeUndefined();
      happen(pty());
      expect(viewer.exitCode).toBe(137);
    } finally {
      jest.useRealTimers();
    }
  });

  test("are at most 16: the one detached longest makes room, else the new one is refused", async () => {
    const { attach, pty, clock } = setUp();
    const all = [];
    for (let n = 0; n < 16; n++) all.push(await attach());
    await expect(attach()).rejects.toThrow("No more than 16 terminals");
    clock.now += 10;
    all[7]?.attachment.detach();
    clock.now += 10;
    all[3]?.attachment.detach();
    await attach();
    expect([pty(7).isKilled, pty(3).isKilled]).toEqual([true, false]);
  });

  test("make room for one that runs only: none goes for a shell that can't be opened", async () => {
    const ptys: ScriptedPty[] = [];
    let isThere = true;
    const { hub } = setUp({
      open: async (options) => {
        if (!isThere) throw new RuntimeUnreachable("gone");
        const pty = new ScriptedPty(options);
        ptys.push(pty);
        return pty;
      },
    });
    for (let n = 0; n < 16; n++) (await hub.attach("env", request())).attachment.detach();
    isThere = false;
    await expect(hub.attach("env", request())).rejects.toThrow("gone");
    expect({ size: hub.size, killed: ptys.filter(({ isKilled }) => isKilled) }).toEqual({
      size: 16,
      killed: [],
    });
    isThere = true;
    await hub.attach("env", request());
    expect({ size: hub.size, isKilled: ptys[0]?.isKilled }).toEqual({ size: 16, isKilled: true });
  });

  test("that were to make room and are wanted again stay: the new one is refused, and ends", async () => {
    const held = Promise.withResolvers<void>();
    const ptys: ScriptedPty[] = [];
    const { hub } = setUp({
      open: async (options) => {
        if (ptys.length === 16) await held.promise;
        const pty = new ScriptedPty(options);
        ptys.push(pty);
        return pty;
      },
    });
    const all = [];
    for (let n = 0; n < 16; n++) all.push(await hub.attach("env", request()));
    all[5]?.attachment.detach();
    const starting = hub.attach("env", request());
    await hub.attach("env", request({ sessionId: all[5]?.session.id ?? null }));
    held.resolve();
    await expect(starting).rejects.toThrow("No more than 16 terminals");
    expect(ptys.map(({ isKilled }) => isKilled)).toEqual([...Array(16).fill(false), true]);
  });

  test("that are being started count too", async () => {
    const held = Promise.withResolvers<void>();
    const { hub } = setUp({
      open: async (options) => {
        await held.promise;
        return new ScriptedPty(options);
      },
    });
    const starting = Array.from({ length: 16 }, () => hub.attach("env", request()));
    await expect(hub.attach("env", request())).rejects.toThrow("No more than 16 terminals");
    held.resolve();
    await Promise.all(starting);
    expect(hub.size).toBe(16);
  });

  test("that were being started when the environment stopped end at once", async () => {
    const held = Promise.withResolvers<void>();
    const started: ScriptedPty[] = [];
    const { hub } = setUp({
      open: async (options) => {
        await held.promise;
        const pty = new ScriptedPty(options);
        started.push(pty);
        return pty;
      },
    });
    const attaching = hub.attach("env", request());
    hub.endAll("env");
    held.resolve();
    await expect(attaching).rejects.toThrow(RuntimeRejected);
    expect(started.map((pty) => pty.isKilled)).toEqual([true]);
    expect(hub.size).toBe(0);
  });

  test("leave nothing behind when they can't be started", async () => {
    const { hub } = setUp({ open: () => Promise.reject(new Error("no PTY")) });
    for (let n = 0; n < 20; n++) await expect(hub.attach("env", request())).rejects.toThrow("no PTY");
  });

  test("end ten minutes after everyone left, but for those with a running job", async () => {
    const { hub, attach, pty, clock } = setUp();
    const idle = await attach();
    const busy = await attach();
    const unknown = await attach();
    const watched = await attach();
    pty(1).running = { foreground: null, count: 1 };
    pty(2).running = null;
    for (const each of [idle, busy, unknown]) each.attachment.detach();
    clock.now += 10 * MINUTE - 1;
    await hub.sweep();
    expect([0, 1, 2, 3].map((n) => pty(n).isKilled)).toEqual([false, false, false, false]);
    clock.now += 1;
    await hub.sweep();
    expect([0, 1, 2, 3].map((n) => pty(n).isKilled)).toEqual([true, false, false, false]);
    expect(watched.viewer.exitCode).toBeUndefined();
    pty(1).running = { foreground: null, count: 0 };
    await hub.sweep();
    expect(pty(1).isKilled).toBe(true);
  });
});
