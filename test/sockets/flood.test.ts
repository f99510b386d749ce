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
