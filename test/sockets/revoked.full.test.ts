import { describe, expect, test } from "bun:test";
import { openEvents } from "../environments/events.ts";
import { DEVPOCKET, TestServer } from "../harness.ts";

describe.if(process.env.DEVPOCKET_TEST_FULL === "1")("a password reset by the command line", () => {
  test("closes the user's sockets and event streams in the server that runs, others stay", async () => {
    const server = await TestServer.start();
    const [ada, bob] = [await server.newUser("ada"), await server.newUser("bob")];
    const [adas, bobs] = await Promise.all(
      [ada, bob].map(async (client) => {
        const { id } = await client.environment({ name: "box", template: "shell" });
        const path = `/api/v1/environments/${id}/logs?follow=true`;
        return {
          socket: await client.logs(String(id)),
          stream: await openEvents(server.url + path, { Authorization: `Bearer ${client.token}` }),
        };
      }),
    );
    let bobsStreamEnded = false;
    void bobs?.stream.ended.then(() => {
      bobsStreamEnded = true;
    });
    const reset = Bun.spawn([...DEVPOCKET, "admin", "reset-password", "ada"], {
      cwd: server.dataDir,
      env: { PATH: Bun.env.PATH ?? "", HOME: Bun.env.HOME ?? "", DATA_DIR: server.dataDir },
    });
    expect(await reset.exited).toBe(0);
    // At the next keepalive, of which there is one every 30 s.
    expect(await adas?.socket.closes()).toEqual({ code: 1008, reason: "Session ended" });
    await adas?.stream.ended;
    expect([bobs?.socket.closed, bobsStreamEnded]).toEqual([undefined, false]);
    await server.stop();
  }, 60_000);
});
