import { afterAll, afterEach, beforeAll, describe, test } from "bun:test";
import { endHeldSessions, HeldSession, holderFolder } from "./held-session.ts";
import { cutHeldInput, cutHeldOutput } from "./holder-cuts.ts";

const folder = holderFolder();

afterEach(() => endHeldSessions(folder));

describe.if(process.env.DEVPOCKET_TEST_FULL === "1").each(["pipes", "sockets"] as const)(
  "a held terminal through %s, over 200 random cuts",
  (through) => {
    beforeAll(() => {
      HeldSession.through = through;
    });
    afterAll(() => {
      HeldSession.through = "pipes";
    });

    test(
      "loses no byte of output and gives none twice",
      () => cutHeldOutput({ folder, id: "output", cuts: 200, seed: 13 }),
      600_000,
    );

    test(
      "has every byte of input applied once",
      () => cutHeldInput({ folder, id: "input", cuts: 200, seed: 14 }),
      600_000,
    );
  },
);
