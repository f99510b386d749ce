import { describe, test } from "bun:test";
import { fuzzLifecycle } from "./lifecycle-fuzz.ts";

/** The same figure again gives the same requests; their timing is the machine's. */
const SEED = Number(process.env.DEVPOCKET_FUZZ_SEED ?? 1);

describe.if(process.env.DEVPOCKET_TEST_FULL === "1")(`hundreds of kills, seed ${SEED}`, () => {
  test.each([
    { sandbox: true, kills: 100 },
    { sandbox: false, kills: 100 },
  ])(
    "leave every environment where it was wanted, sandboxed: $sandbox",
    async ({ sandbox, kills }) => {
      await fuzzLifecycle({ seed: SEED, kills, sandbox });
    },
    600_000,
  );
});
