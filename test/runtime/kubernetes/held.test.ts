import { afterAll, afterEach, describe, expect, test } from "bun:test";
import { getEventListeners } from "node:events";
import { chmodSync, mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { newId } from "../../../src/lib/ids.ts";
import { KubeStatusError } from "../../../src/runtime/kubernetes/api/errors.ts";
import { type HeldPlace, openHeld, resumeHeld } from "../../../src/runtime/kubernetes/terminals/held.ts";
import { openTerminal } from "../../../src/runtime/kubernetes/terminals/terminal.ts";
import {
  PTY_INPUT_HIGH_WATER_BYTES,
  RuntimeUnreachable,
  type TerminalOptions,
} from "../../../src/runtime/runtime.ts";
import { SYSTEM_PATH } from "../../../src/runtime/startup.ts";
import { CountedStream } from "../../sockets/cuts.ts";
import { until } from "../../until.ts";
import { ExecServer } from "./exec-server.ts";
import { endHeldSessions } from "./held-session.ts";

/* The way to a holder and back, with the real holder on this machine. */

const server = new ExecServer();
let closing = new AbortController();
afterEach(async () => {
  closing.abort();
  closing = new AbortController();
  Object.assign(server, FAIR, { patience: null });
  await endHeldSessions(server.folder);
});
afterAll(() => server.close());

const FAIR = { refusal: null, refusals: 0, path: process.env.PATH, systemPath: SYSTEM_PATH };
const COUNT = "stty -onlcr; exec seq 0 1000000000";
const LINE = "0123456789ab\n";

/** A PATH with a perl that is killed as soon as it begins. */
function killingPath(): string {
  const folder = mkdtempSync(join(tmpdir(), "devpocket-perl-"));
  writeFileSync(join(folder, "perl"), "#!/bin/sh\nkill -KILL $$");
  chmodSync(join(folder, "perl"), 0o755);
  return folder;
}

function newPlace(sessionId = newId()): HeldPlace {
  return { connection: server.connection, target: server.target, sessionId, signal: closing.signal };
}

/** What a terminal tells, and that. */
function told(onData: (bytes: Uint8Array) => void = () => {}) {
  const exit = Promise.withResolvers<number | null>();
  /** How many bytes were missing each time. */
  const gaps: number[] = [];
  const seen = { text: "", drains: 0 };
  const options: TerminalOptions = {
    size: { cols: 80, rows: 24 },
    onData,
    onGap: (bytes) => gaps.push(bytes),
    onExit: exit.resolve,
    onDrain: () => {
      seen.drains += 1;
    },
  };
  return { options, gaps, seen, exit: exit.promise };
}

async function open(command: string, onData?: (bytes: Uint8Array) => void, place = newPlace()) {
  const { options, ...rest } = told(onData);
  const pty = await openHeld(place, ["/bin/sh", "-c", command], options);
  if (!pty) throw new Error("not held");
  return { pty, ...rest };
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

test("a window of output comes while readers are paused, and all of it before the exit code", async () => {
  let received = 0;
  const { pty, exit } = await open("head -c 1000000 /dev/zero; exit 7", ({ length }) => {
    received += length;
  });
  pty.pause();
  await until(() => received > 0);
  // They come behind all that may come.
  for (let n = 0; n < 20; n++) expect((await pty.jobs?.())?.count).toBeGreaterThan(0);
  expect(received).toBeLessThan(256 * 1024);
  pty.resume();
  expect([await exit, received]).toEqual([7, 1_000_000]);
});

test("is held where the owner's PATH leads nowhere", async () => {
  Object.assign(server, { path: "$PATH:/workspace/bin" });
  let text = "";
  const { options } = told((bytes) => (text += Buffer.from(bytes).toString()));
  const command = ["/bin/sh", "-c", 'printf "%s|" "$PATH"; exec /bin/cat'];
  const pty = await openHeld(newPlace(), command, options);
  await until(() => text.includes("$PATH:/workspace/bin|"), { message: () => text });
  pty?.kill();
});

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

test("loses no input, and no word that more may follow, to outages", async () => {
  const total = 4 * PTY_INPUT_HIGH_WATER_BYTES;
  let text = "";
  const { pty, seen, exit } = await open(`stty raw -echo; echo ready; head -c ${total} | md5sum`, (bytes) => {
    text += Buffer.from(bytes).toString();
  });
  await until(() => text.includes("ready"));
  const hash = new Bun.CryptoHasher("md5");
  for (let n = 0; n < total / (64 * 1024); n++) {
    const bytes = new Uint8Array(64 * 1024).fill(n);
    hash.update(bytes);
    if (n % 5 === 4) server.cut();
    const { drains } = seen;
    if (!pty.write(bytes)) await until(() => seen.drains > drains);
  }
  expect(await exit).toBe(0);
  expect(text).toContain(hash.digest("hex"));
});

describe("when its runtime lets go of the cluster", () => {
  test("a held terminal says so and lives on, to be taken up by the next", async () => {
    let text = "";
    const place = newPlace();
    const { exit } = await open("echo here; cat", (bytes) => (text += Buffer.from(bytes).toString()), place);
    await until(() => text.includes("here"));
    closing.abort();
    expect(await exit).toBe(null);
    await until(() => server.size === 0);
    closing = new AbortController();
    const again = await resumeHeld(newPlace(place.sessionId));
    expect(again?.endOffset).toBe(text.length);
    await expect(openHeld(place, ["true"], told().options)).rejects.toThrow(RuntimeUnreachable);
  });

  test("one that ends with its connection ends", async () => {
    let text = "";
    const { options, exit } = told((bytes) => (text += Buffer.from(bytes).toString()));
    const pty = await openTerminal(server.connection, server.target, options, closing.signal);
    pty.write(Buffer.from("echo $((1 + 1))\n"));
    await until(() => text.includes("2"));
    closing.abort();
    expect(await exit).toBe(null);
    await until(() => server.size === 0);
  });
});

test.each([
  { container: "refuses", refusal: 403, opens: KubeStatusError, resumes: KubeStatusError },
  { container: "is gone", refusal: 404, opens: RuntimeUnreachable, resumes: null },
  { container: "has no perl", path: "/nowhere", systemPath: "/nowhere", opens: null, resumes: null },
  {
    container: "kills what begins",
    path: killingPath(),
    opens: RuntimeUnreachable,
    resumes: RuntimeUnreachable,
  },
])("nothing stays of a terminal whose container $container", async ({ opens, resumes, ...state }) => {
  Object.assign(server, state);
  const outcome = (work: Promise<unknown>) => work.catch((error: object) => error.constructor);
  expect(await outcome(openHeld(newPlace(), ["true"], told().options))).toBe(opens);
  expect(await outcome(resumeHeld(newPlace()))).toBe(resumes);
  Object.assign(server, FAIR);
  await until(() => getEventListeners(closing.signal, "abort").length + server.size === 0);
});
