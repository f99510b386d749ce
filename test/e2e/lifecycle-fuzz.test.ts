import { test } from "bun:test";
import { fuzzLifecycle } from "./lifecycle-fuzz.ts";

test("whatever is asked at once and whenever the server is killed, environments end where they were wanted", async () => {
  await fuzzLifecycle({ seed: 1, kills: 3, sandbox: true });
}, 120_000);
