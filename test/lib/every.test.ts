import { expect, test } from "bun:test";
import { every } from "../../src/lib/every.ts";
import { until } from "../until.ts";

test("goes on after a failure, which it tells", async () => {
  let calls = 0;
  const failures: unknown[] = [];
  const timer = every(
    1,
    () => {
      calls += 1;
      if (calls < 3) throw new Error(`call ${calls}`);
    },
    (error) => void failures.push(error),
  );
  await until(() => calls > 3);
  clearInterval(timer);
  expect(failures).toEqual([new Error("call 1"), new Error("call 2")]);
});
