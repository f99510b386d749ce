import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { TestServer } from "../harness.ts";

const MAIN = join(import.meta.dir, "../../src/main.ts");

describe.if(process.env.DEVPOCKET_TEST_FULL === "1")("a password reset by the command line", () => {
  test("closes the user's sockets in the server that runs, others stay", async () => {
    const server = await TestServer.start();
    const [ada, bob] = [await server.newUser("ada"), await server.newUser("bob")];
    const [adas, bobs] = await Promise.all(
      [ada, bob].map(async (client) => {
        const { id } = await client.environment({ name: "box", template: "shell" });
        return client.logs(String(id));
      }),
    );
    const reset = Bun.spawn(["bun", MAIN, "admin", "reset-password", "ada"], {
      cwd: server.dataDir,
      env: { PATH: Bun.env.PATH ?? "", HOME: Bun.env.HOME ?? "", DATA_DIR: server.dataDir },
    });
    expect(await reset.exited).toBe(0);
    // At the next keepalive, of which there is one every 30 s.
    expect(await adas?.closes()).toEqual({ code: 1008, reason: "Session ended" });
    expect(bobs?.closed).toBeUndefined();
    await server.stop();
  }, 60_000);
});
