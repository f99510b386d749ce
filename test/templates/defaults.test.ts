import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DEFAULT_TEMPLATES } from "../../src/templates/defaults.ts";
import { TemplateCreate } from "../../src/templates/schemas.ts";

test("the defaults are the specification's five, and a shell", () => {
  expect(
    DEFAULT_TEMPLATES.map(({ name, slug, dockerImage, defaultPort }) => [
      name,
      slug,
      dockerImage,
      defaultPort,
    ]),
  ).toEqual([
    ["shell", null, null, 8080],
    ["python", "python-3.11", "python:3.11-slim", 8080],
    ["nodejs", "nodejs-18", "node:18-slim", 3000],
    ["go", "go-1.21", "golang:1.21-alpine", 8080],
    ["rust", "rust-latest", "rust:latest", 8080],
    ["ubuntu", "ubuntu-22.04", "ubuntu:22.04", 8080],
  ]);
});

test.each(DEFAULT_TEMPLATES.map((template) => [template.name, template] as const))(
  "%s is a template that an administrator could have made",
  (_name, template) => {
    const body = {
      name: template.name,
      display_name: template.displayName,
      description: template.description,
      category: template.category,
      tags: template.tags,
      docker_image: template.dockerImage,
      default_port: template.defaultPort,
      default_resources: template.defaultResources,
      environment_variables: template.environmentVariables,
      startup_commands: template.startupCommands,
      capabilities: template.capabilities,
      documentation_url: template.documentationUrl,
      icon_url: template.iconUrl,
      version: template.version,
    };
    expect<unknown>(TemplateCreate.parse(body)).toEqual({
      ...body,
      status: "active",
      capabilities: [...template.capabilities].sort(),
    });
  },
);

/*
 * The commands run here with a PATH on which there is nothing but what the test puts there, so that they
 * can do no harm to the machine.
 */
describe("startup commands", () => {
  const TOOLS = [
    "python3",
    "pip",
    "npm",
    "nodemon",
    "tsc",
    "apk",
    "go",
    "git",
    "bash",
    "cargo",
    "rustup",
    "apt-get",
    "gcc",
    "make",
    "curl",
    "vim",
    "less",
  ];
  let folder: string;
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), "devpocket-test-"));
  });
  afterAll(() => rmSync(folder, { recursive: true }));

  /** A folder of programs that note how they were called and exit with `code`. */
  function tools(name: string, programs: string[], code: number): { path: string; called: () => string[] } {
    const path = join(folder, name);
    const log = join(folder, `${name}.log`);
    mkdirSync(path, { recursive: true });
    writeFileSync(log, "");
    for (const program of programs) {
      const script = join(path, program);
      writeFileSync(script, `#!/bin/sh\necho "${program} $*" >> ${log}\nexit ${code}\n`);
      chmodSync(script, 0o755);
    }
    for (const program of ["sh", "timeout"]) {
      const script = join(path, program);
      writeFileSync(script, `#!/bin/sh\nexec ${Bun.which(program)} "$@"\n`);
      chmodSync(script, 0o755);
    }
    return { path, called: () => readFileSync(log, "utf8").split("\n").filter(Boolean) };
  }

  function run(command: string, path: string): { code: number; output: string } {
    const { exitCode, stdout, stderr } = Bun.spawnSync(["/bin/sh", "-c", command], { env: { PATH: path } });
    return { code: exitCode, output: `${stdout}${stderr}` };
  }

  const commands = DEFAULT_TEMPLATES.flatMap(({ name, startupCommands }) =>
    startupCommands.map((command) => [name, command] as const),
  );
  const installing = commands.filter(([, command]) => command.includes("timeout"));

  test.each(commands)("%s: with none of its tools there, %p still succeeds", (name, command) => {
    expect(run(command, tools(`none-${name}`, [], 0).path).code).toBe(0);
  });

  test.each(installing)(
    "%s: when it fails, %p says what to do by hand and still succeeds",
    (name, command) => {
      const { code, output } = run(
        command,
        tools(
          `failing-${name}`,
          TOOLS.filter((tool) => !command.startsWith(`command -v ${tool}`)),
          1,
        ).path,
      );
      expect(code).toBe(0);
      expect(output).toContain("could not be installed; the environment works without it. By hand: ");
    },
  );

  test.each([
    ["python", ["python3"], "pip"],
    ["nodejs", ["nodemon", "tsc"], "npm"],
    ["go", ["git", "bash"], "apk"],
    ["ubuntu", ["gcc", "make", "git", "curl", "vim", "less"], "apt-get"],
    ["rust", ["cargo"], "rustup"],
  ])("%s: what is there already is not installed again", (name, present, installer) => {
    const [command = ""] =
      DEFAULT_TEMPLATES.find((template) => template.name === name)?.startupCommands ?? [];
    const { path, called } = tools(`present-${name}`, [...present, installer], 0);
    expect(run(command, path).code).toBe(0);
    expect(called().filter((call) => call.startsWith(`${installer} `))).toEqual([]);
    const without = tools(`absent-${name}`, [installer], 0);
    run(command, without.path);
    expect(without.called().filter((call) => call.startsWith(`${installer} `))).not.toBeEmpty();
  });
});
