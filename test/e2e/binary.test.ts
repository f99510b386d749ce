import { afterAll, beforeAll, expect, test } from "bun:test";
import { chmodSync, copyFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { BINARY, TestServer, temporaryFolder } from "../harness.ts";
import { mainJob } from "./main-job.ts";

const folder = temporaryFolder();
const binary = join(folder, "devpocket");

beforeAll(async () => {
  if (BINARY !== undefined) {
    copyFileSync(BINARY, binary);
    return;
  }
  const build = Bun.spawn(["bun", "run", "build", "--outfile", binary], {
    cwd: join(import.meta.dir, "../.."),
    stdout: "pipe",
    stderr: "pipe",
  });
  const output = await new Response(build.stderr).text();
  if ((await build.exited) !== 0) throw new Error(output);
}, 120_000);

afterAll(() => rmSync(folder, { recursive: true, force: true }));

mainJob("the compiled binary in an empty folder", () => [binary]);

test("the binary names itself in what it says is next", async () => {
  const server = await TestServer.start({ command: [binary], environment: { LOCAL_RUNTIME: "off" } });
  try {
    await server.output.line(/What next:\n {2}1\. \S*devpocket connect --user admin/);
    expect(server.output.text).toContain(`${binary} serve --help`);
  } finally {
    await server.stop();
  }
});

test("the binary runs read-only, as an ordinary user, and neither reads nor writes where it is started", async () => {
  const home = temporaryFolder();
  await Bun.write(join(home, ".env"), "PORT=not-a-port\n");
  await Bun.write(join(home, "bunfig.toml"), 'preload = ["./nothing.ts"]\n');
  chmodSync(binary, 0o555);
  chmodSync(folder, 0o755);
  chmodSync(home, 0o555);
  const run = Bun.spawn(
    ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", binary, "version"],
    {
      cwd: home,
      env: {},
      stdout: "pipe",
      stderr: "pipe",
    },
  );
  expect(await new Response(run.stdout).text()).toMatch(/^\d+\.\d+\.\d+\n$/);
  expect(await run.exited).toBe(0);
  rmSync(home, { recursive: true, force: true });
});
