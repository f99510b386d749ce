import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test";
import { mkdirSync } from "node:fs";
import { FrameReader, frameOf, numbersOf } from "../../../src/runtime/kubernetes/terminals/frames.ts";
import { until } from "../../until.ts";
import { endHeldSessions, HeldSession, HOLDER, heldSessions, holderFolder } from "./held-session.ts";
import { cutHeldInput, cutHeldOutput } from "./holder-cuts.ts";

/* What runs in containers and holds terminals there, on this machine's perl. */

const KIB = 1024;
const KEPT = 3 * KIB * KIB;

const folder = holderFolder();
let sessions = 0;
const newSession = () => `s${++sessions}`;

afterEach(() => endHeldSessions(folder));

/** A session and all that it has printed, as text. */
function open(command: string, id = newSession()) {
  const shown = { text: "" };
  const session = HeldSession.open(folder, id, command, (bytes) => {
    shown.text += Buffer.from(bytes).toString();
  });
  return { id, session, shown, shows: (text: string) => until(() => shown.text.includes(text)) };
}

/** How much a session has printed. */
async function endOf(id: string): Promise<number> {
  const look = HeldSession.attach(folder, id, 0);
  const [, , end = 0] = await look.head();
  await look.cut();
  return end;
}

test("uses the pipes of an exec itself, which then need nobody between them", async () => {
  const { session, shows } = open("read line; echo got $line");
  await session.head();
  session.stopRelay();
  session.letGo();
  session.type("this\n", 5);
  await shows("got this");
  expect(await session.frame("x")).toBe("0");
});

test("relays to a holder that is older than its script", async () => {
  const id = newSession();
  mkdirSync(folder, { recursive: true });
  const asked = new FrameReader({
    onOutput: () => {},
    onFrame: (type, text) => frames.push(`${type} ${text}`),
  });
  const frames: string[] = [];
  const older = Bun.listen({
    unix: `${folder}/${id}`,
    socket: {
      data(socket, bytes) {
        asked.push(bytes);
        if (frames.length === 1) socket.write(frameOf("h", "0 7 9 90 30 0\n"));
        else socket.write(frameOf("o", "", Buffer.from("output")));
      },
    },
  });
  const session = HeldSession.attach(folder, id, 7);
  expect(await session.head()).toEqual([0, 7, 9, 90, 30, 0]);
  session.send("c", "100");
  await until(() => session.receivedBytes === 6);
  expect(frames).toEqual([expect.stringMatching(/^A 7 0 /), "c 100"]);
  await session.cut();
  older.stop(true);
});

test("gives the size from the first line on, and the new one after a resize", async () => {
  const { session, shows } = open("trap 'stty size; exit' WINCH; stty size; while :; do sleep 0.05; done");
  session.letGo();
  await shows("30 90");
  session.send("r", "111 44");
  await shows("44 111");
});

test.each([
  ["exit 0", 0],
  ["exit 7", 7],
  ["kill -TERM $$", 143],
  ["kill -KILL $$", 137],
])("tells the exit of `%s`: %d", async (command, code) => {
  const { session, shown } = open(`echo last words; ${command}`);
  session.letGo();
  expect(Number(await session.frame("x"))).toBe(code);
  expect(shown.text).toBe("last words\r\n");
});

test("goes once its end has been heard of", async () => {
  const { id, session } = open("exit 3");
  expect(await session.letGo().frame("x")).toBe("3");
  session.send("k");
  await session.reading;
  expect(await HeldSession.attach(folder, id, 0).frame("g")).toBe("");
});

test("says of a session that never was that it is gone", async () => {
  const session = HeldSession.attach(folder, "nosuch", 0);
  expect(await session.frame("g")).toBe("");
});

test("holds a flood up until who has begun it is attached, however late", async () => {
  const late = "BEGIN { *CORE::GLOBAL::connect = sub { sleep 1; CORE::connect($_[0], $_[1]) } } do shift";
  const args = ["open", folder, newSession(), "90", "90", "30", "/bin/sh", "-c", "exec yes"];
  const session = new HeldSession(args, undefined, ["perl", "-e", late, HOLDER]);
  const [from, at, end] = await session.head();
  expect([from, at]).toEqual([0, 0]);
  expect(end).toBeWithin(1, 64 * KIB + 1);
  await session.cut();
});

test("drops what does not fit while nobody is attached, and counts it", async () => {
  const { id, session } = open("stty -onlcr; head -c 5000000 /dev/zero; sleep 1000");
  await session.head();
  await session.cut();
  await until(async () => (await endOf(id)) === 5_000_000, { timeoutMs: 20_000, intervalMs: 100 });
  const look = HeldSession.attach(folder, id, 0);
  const [start = 0, from] = await look.head();
  expect(from).toBe(start);
  expect(5_000_000 - start).toBeWithin(KEPT, KEPT + 64 * KIB);
  const session2 = HeldSession.attach(folder, id, 0).letGo();
  await until(() => session2.receivedBytes === 5_000_000 - start);
  await session2.cut();
});

describe("says what output has set that it no longer has:", () => {
  const PIECE = 16 * 4095;
  /** An ESC for printf(1). */
  const printf = (text: string) => `printf '${text.replaceAll("\x1b", "\\033").replaceAll("\x07", "\\007")}'`;
  async function modesAfter(commands: string[]): Promise<string> {
    const { id, session } = open(
      `stty -onlcr; ${commands.join("; ")}; head -c 5000000 /dev/zero; exec sleep 1000`,
    );
    await session.head();
    await session.cut();
    await until(async () => (await endOf(id)) >= 5_000_000, { timeoutMs: 20_000, intervalMs: 100 });
    const [first = ""] = (await HeldSession.attach(folder, id, 0).frame("h")).split("\n");
    return Buffer.from(first.split(" ")[7] ?? "", "hex").toString();
  }

  test("modes, the keypad's and the title, over the border of pieces too", async () => {
    const first = "\x1b[?1049h\x1b[?1;2004h\x1b]2;a title\x07\x1b=";
    const fill = `head -c ${PIECE - first.length - "\x1b[?2".length} /dev/zero`;
    const modes = await modesAfter([printf(first), fill, printf("\x1b[?25l\x1b[?2004l")]);
    expect(modes).toBe("\x1b[?1h\x1b[?1049h\x1b[?2004l\x1b[?25l\x1b=\x1b]2;a title\x07");
  });

  test("a reset", async () => {
    const modes = await modesAfter([printf("\x1b[?1h\x1b[?7l\x1b="), printf("\x1bc")]);
    expect(modes).toBe("\x1b[?1l\x1b[?7h\x1b>");
  });

  test("nothing", async () => {
    expect(await modesAfter(["echo plain"])).toBe("");
  });
});

test("gives whoever attaches to a flood that runs on the bytes that its head has promised", async () => {
  // Of a length that no read's is a multiple of.
  const line = "0123456789ab\n";
  const { id, session } = open(`stty -onlcr; exec yes ${line.trim()}`);
  await session.head();
  await session.cut();
  for (let time = 0; time < 15; time++) {
    const parts: Buffer[] = [];
    const late = HeldSession.attach(folder, id, 0, (bytes) => parts.push(Buffer.from(bytes)));
    const [, from = 0] = await late.head();
    late.send("c", String(from + 100_000));
    await until(() => late.receivedBytes === 100_000, { intervalMs: 1 });
    const phase = from % line.length;
    expect(Buffer.concat(parts).toString()).toBe(line.repeat(8000).slice(phase, phase + 100_000));
    await late.cut();
  }
});

test("has as much output ready beyond the credit as it is asked to", async () => {
  const id = newSession();
  const taken = `${folder}/../taken-${id}`;
  const { session } = open(`stty -onlcr; head -c 300000 /dev/zero; touch ${taken}; sleep 1000`, id);
  session.send("c", "100000 250000");
  await until(() => Bun.file(taken).exists());
  await until(() => session.receivedBytes === 100_000);
});

test("holds a flood up while a lost connection may come back, and then lets it run", async () => {
  const id = newSession();
  const command = "stty -onlcr; head -c 8000000 /dev/zero; sleep 1000";
  const lost = HeldSession.open(folder, id, command, undefined, "1000");
  lost.send("c", "300000");
  await until(() => lost.receivedBytes === 300_000);
  await lost.cut();
  const ends: number[] = [];
  while (ends.length < 2 || ends.at(-1) !== ends.at(-2)) ends.push(await endOf(id));
  expect(ends.at(-1)).toBeLessThan(1_000_000);
  // Not all of what was sent has come.
  const next = HeldSession.attach(folder, id, 10_000, undefined, "1");
  expect((await next.head())[1]).toBe(10_000);
  next.send("c", "300000");
  await until(() => next.receivedBytes === 290_000);
  await next.cut();
  await until(async () => (await endOf(id)) === 8_000_000);
});

test("takes input while output is held up, so that Ctrl-C gets through a flood", async () => {
  const { session } = open("trap 'exit 5' INT; while :; do echo flood; done");
  session.send("c", "1000");
  await until(() => session.receivedBytes === 1000);
  session.type("\x03", 1);
  await session.frame("i");
  session.letGo();
  expect(await session.frame("x")).toBe("5");
});

test("tells of taken input in one piece with its echo", async () => {
  const { id, session } = open("exec sleep 1000");
  await session.head();
  const pieces: string[] = [];
  const socket = await Bun.connect({
    unix: `${folder}/${id}`,
    socket: {
      data(_socket, bytes) {
        let types = "";
        const reader = new FrameReader({
          onOutput: () => (types += "o"),
          onFrame: (type) => (types += type),
        });
        reader.push(bytes);
        pieces.push(types);
      },
    },
  });
  socket.write(frameOf("A", "0 0"));
  socket.write(frameOf("c", "1000000"));
  await until(() => pieces.length > 0);
  for (let key = 1; key <= 50; key++) {
    socket.write(frameOf("w", `one ${key} 0 0\n`, Buffer.from("k")));
    await until(() => pieces.length > key, { intervalMs: 1 });
  }
  expect(pieces).toEqual(["h", ...Array.from({ length: 50 }, () => "io")]);
  socket.terminate();
});

test("says no more input to be taken than the terminal takes, and loses none of it", async () => {
  const { session, shows } = open("stty raw -echo; echo ready; sleep 0.5; head -c 2000000 | wc -c");
  session.letGo();
  await shows("ready");
  const piece = "x".repeat(50_000);
  for (let sent = piece.length; sent <= 2_000_000; sent += piece.length) session.type(piece, sent);
  await shows("2000000");
  expect(await session.frame("x")).toBe("0");
});

test("tells what runs besides the shell, and ends all of it", async () => {
  const { session, shows } = open("sleep 1000 & echo started; sleep 1001; true");
  session.letGo();
  await shows("started");
  const jobs = await until(async () => {
    session.frames.length = 0;
    session.send("j");
    const text = await session.frame("j");
    return numbersOf(text)[0] === 2 && text;
  });
  // A shell without job control leaves its own process group in front.
  expect(jobs).toBe("2 ");
  session.send("k");
  expect(Number(await session.frame("x"))).toBeGreaterThan(128);
});

test("is listed while its command runs; a socket that nobody listens on is cleared away", async () => {
  const { id, session } = open("exec sleep 1000");
  await session.head();
  expect(await heldSessions(folder)).toEqual([id]);
  const dead = Bun.listen({ unix: `${folder}/dead`, socket: { data() {} } });
  dead.stop(true);
  await Bun.write(`${folder}/dead`, "");
  expect(await heldSessions(folder)).toEqual([id]);
  expect(await Bun.file(`${folder}/dead`).exists()).toBe(false);
});

describe.each(["pipes", "sockets"] as const)("through %s", (through) => {
  beforeAll(() => {
    HeldSession.through = through;
  });
  afterAll(() => {
    HeldSession.through = "pipes";
  });

  test("keeps output and exit of a command that ended while nobody was attached", async () => {
    const { id, session, shows } = open("echo first; read x; echo second; exit 3");
    session.letGo();
    await shows("first\r\n");
    session.type("\n", 1);
    await session.frame("i");
    await session.cut();
    await until(async () => !(await heldSessions(folder)).includes(id));
    for (let time = 0; time < 2; time++) {
      let text = "";
      const next = HeldSession.attach(folder, id, 7, (bytes) => {
        text += Buffer.from(bytes).toString();
      }).letGo();
      expect(await next.frame("x")).toBe("3");
      expect(text).toBe("\r\nsecond\r\n");
      await next.cut();
    }
  });

  test("loses no byte and gives none twice over random cuts", () =>
    cutHeldOutput({ folder, id: newSession(), cuts: 10, seed: 11 }));

  test("applies input once, whatever is sent again after a cut", () =>
    cutHeldInput({ folder, id: newSession(), cuts: 10, seed: 12 }));

  test.each([
    ["", 64 * KIB],
    [" 20000", 20_000],
    [" 100000000", 512 * KIB],
  ])(
    "holds a flood up while someone is attached and has no credit, whatever it asks ahead:%s",
    async (ahead, most) => {
      const id = newSession();
      const session = HeldSession.open(folder, id, "exec yes", undefined, "90");
      session.send("c", `100000${ahead}`);
      await until(() => session.receivedBytes === 100_000);
      const second = HeldSession.attach(folder, id, 100_000);
      const [, from, end = 0] = await second.head();
      expect(from).toBe(100_000);
      expect(end).toBeLessThanOrEqual(100_000 + most);
      // Whoever attaches displaces the one before.
      await session.reading;
      await second.cut();
    },
  );
});
