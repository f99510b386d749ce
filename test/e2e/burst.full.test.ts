import { describe, expect, test } from "bun:test";
import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { TestServer } from "../harness.ts";
import { until } from "../until.ts";
import { allBecome, createMany, deleteMany } from "./many.ts";

const COUNT = 200;

describe.if(process.env.DEVPOCKET_TEST_FULL === "1")("many environments at once", () => {
  test("200 created at once all run; deleted at once, nothing of them is left", async () => {
    const server = await TestServer.start();
    try {
      const admin = await server.signedIn();
      const before = childrenOf(server.pid);
      const ids = await createMany(admin, COUNT);
      expect(new Set(ids).size).toBe(COUNT);
      await allBecome(admin, "running", COUNT);
      expect(childrenOf(server.pid).length - before.length).toBe(COUNT);

      await deleteMany(admin, server, ids);
      expect(await admin.list("/api/v1/environments")).toEqual([]);
      await until(() => childrenOf(server.pid).length === before.length);
      expect(openFilesOf(server.pid).filter((path) => ids.some((id) => path.includes(id)))).toEqual([]);
    } finally {
      expect(await server.stop()).toBe(0);
    }
  }, 300_000);
});

function childrenOf(pid: number): string[] {
  return readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").split(" ").filter(Boolean);
}

function openFilesOf(pid: number): string[] {
  const folder = `/proc/${pid}/fd`;
  return readdirSync(folder).flatMap((name) => {
    try {
      return [readlinkSync(`${folder}/${name}`)];
    } catch {
      return [];
    }
  });
}
