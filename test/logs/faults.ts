import { join } from "node:path";
import { openEvents } from "../environments/events.ts";
import { until } from "../until.ts";
import { openLogDatabase } from "./environment.ts";

/**
 * Follows a counted log while its runtime breaks off, the client's connections are cut and the server is
 * killed with SIGKILL; gives the messages in the order in which they came.
 */
export async function followThroughFaults({ kills, cutsPerLife }: { kills: number; cutsPerLife: number }) {
  using database = openLogDatabase();
  const environmentId = database.newEnvironment();
  const got: { id: number; message: string }[] = [];
  for (let life = 0; life < kills; life++) {
    const server = Bun.spawn(
      [process.execPath, join(import.meta.dir, "server.ts"), database.file, environmentId],
      { stdout: "pipe", stderr: "inherit" },
    );
    try {
      const { value } = await server.stdout.getReader().read();
      const origin = `http://127.0.0.1:${Number(new TextDecoder().decode(value))}`;
      for (let cut = 1; cut <= cutsPerLife; cut++) {
        const client = await openEvents(
          `${origin}/api/v1/environments/${environmentId}/logs?follow=true&since_offset=0`,
          { "last-event-id": String(got.at(-1)?.id ?? 0) },
        );
        const enough = 1 + Math.floor(Math.random() * 200);
        await until(() => client.events.length >= enough, { intervalMs: 1 });
        // Every other server dies under its client.
        if (cut === cutsPerLife && life % 2 === 0) server.kill("SIGKILL");
        client.close();
        await client.ended.catch(() => {});
        got.push(...client.events.map(({ id, data }) => ({ id, message: data.message })));
      }
    } finally {
      server.kill("SIGKILL");
      await server.exited;
    }
  }
  return got;
}
