import { expect, test } from "bun:test";
import { until } from "../until.ts";
import { Client } from "./client.ts";
import { SlowClient } from "./slow-client.ts";
import { serveTerminals } from "./terminal-server.ts";

/** The best of a few: what other work on the machine adds is not ours. */
async function bestOf(times: number, measure: () => Promise<number>): Promise<number> {
  let best = Number.POSITIVE_INFINITY;
  for (let n = 0; n < times; n++) best = Math.min(best, await measure());
  return best;
}

test("Ctrl-C under `yes` is seen within 150 ms by a client that reads 1 MB/s", async () => {
  await using server = serveTerminals();
  const client = new SlowClient(server.url(), { bytesPerMs: 1000 });
  await client.shown("$ ");
  const best = await bestOf(3, async () => {
    const before = client.shownBytes;
    client.socket.send(Buffer.from("yes\r"));
    await until(() => client.shownBytes - before > 1_000_000);
    const stopped = client.shown("$ ");
    const pressed = performance.now();
    client.socket.send(Buffer.from("\x03"));
    await stopped;
    return performance.now() - pressed;
  });
  expect(best).toBeLessThan(150);
}, 20_000);

test("a flood that nobody watches leaves the echo of another terminal unharmed", async () => {
  await using server = serveTerminals();
  const flooding = new Client(server.url());
  const { session_id } = await flooding.next("welcome");
  flooding.send({ type: "input", data: "yes\r" });
  await until(() => flooding.output.length > 100_000);
  flooding.socket.terminate();

  const typing = new Client(server.url());
  expect((await typing.next("welcome")).session_id).not.toBe(session_id);
  const best = await bestOf(20, async () => {
    const seen = typing.output.length;
    const pressed = performance.now();
    typing.send({ type: "input", data: "k" });
    await until(() => typing.output.length > seen, { intervalMs: 0 });
    return performance.now() - pressed;
  });
  expect(best).toBeLessThan(20);
}, 20_000);

test("of four viewers one reads nothing: the other three get everything, and it is told its gap", async () => {
  const total = 30_000_000;
  await using server = serveTerminals({
    command: ["sh", "-c", `stty raw -echo; printf r; read go; head -c ${total} /dev/zero; sleep 60`],
  });
  const binary = { protocols: ["devpocket.v1.binary"] };
  const first = new Client(server.url(), binary);
  const { session_id } = await first.next("welcome");
  const join = () => new Client(server.url({ session_id: String(session_id), mode: "view" }), binary);
  const [second, third, stuck] = [join(), join(), join()];
  const all = [first, second, third, stuck];
  await Promise.all([second, third, stuck].map((client) => client.next("welcome")));
  // Typed any earlier, the line would be echoed.
  const ready = Buffer.from("r");
  await until(() => all.every(({ binary: frames }) => ready.equals(Buffer.concat(frames))));

  const received = new Map<Client, number>();
  const missing = new Map<Client, number>();
  let stuckReads = false;
  for (const client of all) {
    let offset = ready.length;
    client.onFrame = (frame) => {
      if (frame instanceof Uint8Array) {
        received.set(client, (received.get(client) ?? 0) + frame.length);
        offset += frame.length;
      } else if (frame.type === "gap") {
        missing.set(client, (missing.get(client) ?? 0) + Number(frame.bytes));
        offset = Number(frame.offset);
      }
      // One that has shown nothing acknowledges nothing.
      if (client !== stuck || stuckReads) client.send({ type: "ack", offset });
      client.binary.length = 0;
    };
  }
  first.socket.send(Buffer.from("\n"));
  const watching = [first, second, third];
  await until(() => watching.every((client) => received.get(client) === total), { timeoutMs: 15_000 });
  expect(watching.map((client) => missing.get(client))).toEqual([undefined, undefined, undefined]);
  expect(received.get(stuck)).toBeLessThanOrEqual(512 * 1024);

  stuckReads = true;
  stuck.send({ type: "ack", offset: ready.length + (received.get(stuck) ?? 0) });
  await until(() => (received.get(stuck) ?? 0) + (missing.get(stuck) ?? 0) === total);
  expect(missing.get(stuck)).toBeGreaterThan(0);
}, 30_000);
