import { afterEach, describe, expect, test } from "bun:test";
import { type ExecStream, openExec, runCommand } from "../../../src/runtime/kubernetes/api/exec.ts";
import { RuntimeUnreachable } from "../../../src/runtime/runtime.ts";
import { until } from "../../until.ts";
import { SilentStandIn, StandIn } from "./stand-in.ts";

const TARGET = { namespace: "n", pod: "p", container: "c" };
const PING_EVERY_MS = 10;
const PING_BYTES = 6;
const MANY_PINGS = 6;

describe("an exec", () => {
  let standIn: StandIn | SilentStandIn;
  let stream: ExecStream;
  let ends: (number | null)[];
  afterEach(async () => {
    stream.close();
    await standIn.close();
  });

  async function open() {
    const ended: typeof ends = [];
    ends = ended;
    const ways = { tty: true, stdin: true, pingEveryMs: PING_EVERY_MS };
    stream = await openExec(standIn.connection, TARGET, ["sh"], ways, {
      onOutput() {},
      onEnd: (code) => ended.push(code),
    });
  }

  test.each([0, 100])(
    "ends when the far side has fallen silent, with %d bytes on their way",
    async (bytes) => {
      standIn = new SilentStandIn();
      await open();
      stream.write(new Uint8Array(bytes));
      await until(() => ends.length > 0);
      expect(ends).toEqual([null]);
    },
  );

  test("stays while the far side answers, and while it can't because it is paused", async () => {
    const answering = new StandIn({ stream: () => () => {} });
    standIn = answering;
    await open();
    await until(() => answering.pings > MANY_PINGS);
    stream.pause();
    await until(() => answering.pings > 2 * MANY_PINGS);
    expect(ends).toEqual([]);
  });

  test("stays while the container does not take its input", async () => {
    const silent = new SilentStandIn();
    standIn = silent;
    await open();
    const input = new Uint8Array(10_000);
    stream.write(input);
    await until(() => silent.receivedBytes > input.length + MANY_PINGS * 2 * PING_BYTES);
    expect(ends).toEqual([]);
  });
});

test("a command's time is over when it is, whether the cluster answers or not", async () => {
  const silent = new SilentStandIn();
  const run = runCommand(silent.connection, TARGET, ["true"], { timeoutMs: 50 });
  expect(await run.catch((error: unknown) => error)).toBeInstanceOf(RuntimeUnreachable);
  silent.close();
}, 5_000);
