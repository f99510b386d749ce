import { afterEach, expect, test } from "bun:test";
import { createHints } from "../../../src/runtime/hints.ts";
import { createProgressTracker } from "../../../src/runtime/kubernetes/logs/progress.ts";
import { startupNonce } from "../../../src/runtime/kubernetes/names.ts";
import { until } from "../../until.ts";
import { StandIn } from "./stand-in.ts";

const REF = { environmentId: "e1", userId: "u1" };
const POD = {
  metadata: { namespace: "n", name: "p", uid: "p1", annotations: { "devpocket.dev/generation": "2" } },
  spec: { containers: [] },
};

let close = () => {};
afterEach(() => close());

test("a log that can't be read as soon as its container runs is read a moment later, for who asks at each hint", async () => {
  let refusals = 3;
  const mark = `\x1edevpocket ${startupNonce("e1", 2)} step 1 3 make`;
  const server = new StandIn({
    stream: () => {
      if (refusals-- > 0) return 400;
      return (stream) => stream.send(Buffer.from(`2026-11-21T23:37:08.000000000Z ${mark}\n`));
    },
  });
  const hints = createHints();
  const tracker = createProgressTracker(server.connection, hints, () => REF);
  close = () => {
    tracker.close();
    void server.close();
  };
  let seen = tracker.of(POD, 0);
  hints.on(() => {
    seen = tracker.of(POD, 0);
  });
  await until(() => seen);
  expect(seen).toEqual({ step: 1, steps: 3, command: "make", done: false });
  expect(refusals).toBe(-1);
});
