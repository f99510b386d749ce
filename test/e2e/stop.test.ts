import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { connect } from "node:net";
import { TestServer } from "../harness.ts";
import { until } from "../until.ts";

/** Bytes that the kernel holds for clients of `port`, because they take no more. */
function unsentBytes(port: number): number {
  const local = `:${port.toString(16).toUpperCase().padStart(4, "0")}`;
  return readFileSync("/proc/net/tcp", "utf8")
    .split("\n")
    .map((line) => line.trim().split(/\s+/))
    .filter(([, address]) => address?.endsWith(local))
    .reduce((sum, [, , , , queues = "0:0"]) => sum + Number.parseInt(queues, 16), 0);
}

test("a server stops although a client has stopped to read its log stream", async () => {
  const server = await TestServer.start();
  const client = await server.signedIn();
  await client.post(
    "/api/v1/templates",
    {
      name: "flood",
      display_name: "Flood",
      category: "devops",
      docker_image: null,
      startup_commands: ["seq 100000"],
    },
    201,
  );
  const { id } = await client.environment({ name: "flooded", template: "flood" });
  const { hostname, port } = new URL(server.url);
  const socket = connect(Number(port), hostname).pause();
  socket.write(
    `GET /api/v1/environments/${id}/logs?follow=true&since_offset=0 HTTP/1.1\r\nHost: ${hostname}\r\nAuthorization: Bearer ${client.token}\r\n\r\n`,
  );
  let before = 0;
  let same = 0;
  // A server that is slow for a moment looks the same once.
  const isStuck = () => {
    const now = unsentBytes(Number(port));
    same = now > 0 && now === before ? same + 1 : 0;
    before = now;
    return same >= 5;
  };
  await until(isStuck, { intervalMs: 100 });
  expect(await server.stop()).toBe(0);
  expect(server.output.text).toContain("requests still open at stop");
  socket.destroy();
});
