import { afterAll, expect, test } from "bun:test";
import { rmSync } from "node:fs";
import { join } from "node:path";
import { TestServer, temporaryFolder } from "../harness.ts";
import { typesOf } from "./client/generate.ts";

const ROOT = join(import.meta.dir, "../..");
const PROGRAM = join(import.meta.dir, "client/program.ts");

const folder = temporaryFolder();
afterAll(() => rmSync(folder, { recursive: true, force: true }));

async function run(...command: string[]): Promise<{ code: number; output: string }> {
  const child = Bun.spawn(command, { cwd: ROOT, stdout: "pipe", stderr: "pipe" });
  const [out, err] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
  ]);
  return { code: await child.exited, output: out + err };
}

test("a client generated from the document compiles and does the main job", async () => {
  const server = await TestServer.start();
  try {
    const document: object = JSON.parse(await (await fetch(`${server.url}/openapi.json`)).text());
    await Bun.write(join(folder, "api.d.ts"), await typesOf(document, folder));
    const project = {
      extends: join(ROOT, "tsconfig.json"),
      compilerOptions: {
        lib: ["esnext", "dom"],
        typeRoots: [join(ROOT, "node_modules/@types")],
        paths: { "devpocket-api": [join(folder, "api.d.ts")] },
      },
      include: [],
      files: [PROGRAM],
    };
    await Bun.write(join(folder, "tsconfig.json"), JSON.stringify(project));
    const tsc = join(ROOT, "node_modules/.bin/tsc");
    expect(await run(tsc, "--project", join(folder, "tsconfig.json"))).toEqual({ code: 0, output: "" });
    expect(await run("bun", PROGRAM, server.url)).toEqual({ code: 0, output: "done, 0 environments left\n" });
  } finally {
    await server.stop();
  }
}, 60_000);
