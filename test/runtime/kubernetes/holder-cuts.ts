import { expect } from "bun:test";
import { CountedStream, randomNumbers } from "../../sockets/cuts.ts";
import { until } from "../../until.ts";
import { HeldSession } from "./held-session.ts";

/* Sessions of a holder whose connections are cut again and again. */

const KIB = 1024;

interface Cuts {
  /** Where the holder is. */
  folder: string;
  /** Of a session that is not there yet. */
  id: string;
  cuts: number;
  seed: number;
}

/** Every byte of output comes once and in order. */
export async function cutHeldOutput({ folder, id, cuts, seed }: Cuts): Promise<void> {
  const random = randomNumbers(seed);
  const stream = new CountedStream();
  let offset = 0;
  const take = (bytes: Uint8Array) => {
    offset += bytes.length;
    stream.push(bytes);
  };
  const command = "stty -onlcr; n=0; while :; do echo $n; n=$((n+1)); done";
  // Long enough for a new connection, however busy the machine is: without it what runs on may push out what was lost.
  const patience = "90";
  let session = HeldSession.open(folder, id, command, take, patience);
  for (let cut = 0; cut < cuts; cut++) {
    const window = 8 * KIB + Math.floor(random() ** 3 * 300 * KIB);
    const stopAt = offset + Math.floor(random() * 200 * KIB);
    await session.head();
    // Credit as the server gives it: a part of it is on the way when the connection is cut.
    while (offset < stopAt) {
      session.send("c", String(offset + window));
      const seen = offset;
      await until(() => offset > seen, { intervalMs: 1 });
    }
    await session.cut();
    session = HeldSession.attach(folder, id, offset, take, patience);
    expect((await session.head())[1]).toBe(offset);
  }
  const seen = stream.next;
  session.letGo();
  await until(() => stream.next > seen + 1000);
  await session.cut();
}

/** Every byte of input is applied once and in order, whatever is sent again. */
export async function cutHeldInput({ folder, id, cuts, seed }: Cuts): Promise<void> {
  const random = randomNumbers(seed);
  const stream = new CountedStream();
  let offset = 0;
  let isReady = false;
  const take = (bytes: Uint8Array) => {
    offset += bytes.length;
    const start = isReady ? 0 : bytes.indexOf(0x0a) + 1;
    isReady ||= start > 0;
    if (isReady) stream.push(bytes.subarray(start));
  };
  let session = HeldSession.open(folder, id, "stty raw -echo; echo; exec cat", take).letGo();
  await until(() => isReady);
  let [next, typedBytes] = [0, 0];
  let unconfirmed: { text: string; bytes: number }[] = [];
  const confirm = () => {
    const places = session.frames.filter(({ type }) => type === "i");
    const taken = Math.max(0, ...places.map(({ text }) => Number(text.split(" ")[1])));
    unconfirmed = unconfirmed.filter(({ bytes }) => bytes > taken);
  };
  for (let cut = 0; cut < cuts; cut++) {
    for (let message = 0; message < 20; message++) {
      const lines = Array.from({ length: 1 + Math.floor(random() * 100) }, () => `${next++}\n`).join("");
      typedBytes += lines.length;
      unconfirmed.push({ text: lines, bytes: typedBytes });
      session.type(lines, typedBytes);
    }
    if (random() < 0.5) await session.frame("i");
    await session.cut();
    confirm();
    session = HeldSession.attach(folder, id, offset, take).letGo();
    await session.head();
    for (const { text, bytes } of unconfirmed) session.type(text, bytes);
  }
  await until(() => stream.next === next, { message: () => `${stream.next} of ${next}` });
  await session.cut();
  const last = HeldSession.attach(folder, id, offset);
  expect(await last.frame("h")).toEndWith(`\none ${typedBytes} 0 0\n`);
  await last.cut();
}
