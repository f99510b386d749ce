#!/usr/bin/env bun
import { parseArgs } from "node:util";
import { DEFAULT_URL, serverUrl } from "./address.ts";
import { ConfigError, configHelp, loadConfig } from "./config/config.ts";
import { program } from "./program.ts";
import { VERSION } from "./version.ts";

/*
 * The command line. Each command's module is loaded when it is asked for: serving does not pay for the
 * others, nor they for it.
 */

interface Options {
  url?: string | undefined;
  user?: string | undefined;
  template?: string | undefined;
}

const OPTIONS = ["url", "user", "template"] as const satisfies (keyof Options)[];

interface Command {
  usage: string;
  summary: string;
  /** More, for `--help`. */
  help?: string;
  /** Names of what stands after the command. */
  arguments?: string[];
  /** Names of its options; most commands take none. */
  options?: (keyof Options)[];
  run(values: string[], options: Options): Promise<number>;
}

const COMMANDS: Record<string, Command> = {
  serve: {
    usage: "[serve]",
    summary: "serve the API (what happens without a command)",
    help: `Configuration, from the environment only:\n${configHelp()}`,
    run: async () => (await import("./serve.ts")).serve(loadConfig()),
  },
  migrate: {
    usage: "migrate",
    summary: "bring the database up to date, as every start does, and stop",
    run: async () => (await import("./admin.ts")).migrate(loadConfig()),
  },
  "admin create": {
    usage: "admin create EMAIL [USERNAME]",
    summary: "make an administrator and show the password once",
    arguments: ["EMAIL", "[USERNAME]"],
    run: async ([email = "", username]) =>
      (await import("./admin.ts")).createAdmin(loadConfig(), email, username),
  },
  "admin reset-password": {
    usage: "admin reset-password NAME",
    summary: "give a user a new password, show it once and end all sessions",
    arguments: ["USERNAME-OR-EMAIL"],
    run: async ([name = ""]) => (await import("./admin.ts")).resetPassword(loadConfig(), name),
  },
  connect: {
    usage: "connect [ENVIRONMENT]",
    summary: "a shell in an environment, made from the shell template when there is none",
    help: `Options:\n  --url URL            the server (${DEFAULT_URL})\n  --user NAME          username or email\n  --template TEMPLATE  for a new environment (shell)`,
    arguments: ["[ENVIRONMENT]"],
    options: ["url", "user", "template"],
    run: async ([name = "my-first"], { url, user, template }) =>
      (await import("./connect/connect.ts")).connect({
        url: serverUrl(url ?? DEFAULT_URL),
        user,
        name,
        template: template ?? "shell",
      }),
  },
  openapi: {
    usage: "openapi",
    summary: "print the OpenAPI 3.1 document",
    run: async () => (await import("./admin.ts")).printOpenApi(loadConfig()),
  },
  backup: {
    usage: "backup FILE",
    summary: "write a consistent copy of the database, also while the server runs",
    help: "The keys in DATA_DIR/keys are not in it: without the encryption key, kubeconfigs in it can't be read.",
    arguments: ["FILE"],
    run: async ([file = ""]) => (await import("./admin.ts")).backup(loadConfig(), file),
  },
  "rotate-key": {
    usage: "rotate-key",
    summary: "seal all kubeconfigs with a new encryption key; then start the server again",
    help: "Keys in DATA_DIR/keys: a new one is made. With ENCRYPTION_KEY set: put the new key first and keep the old ones after it, run this, then remove the old ones.",
    run: async () => (await import("./admin.ts")).rotateKey(loadConfig()),
  },
  manifests: {
    usage: "manifests IMAGE [NAMESPACE]",
    summary: "print what runs DevPocket itself in a cluster, for kubectl apply -f -",
    arguments: ["IMAGE", "[NAMESPACE]"],
    run: async ([image = "", namespace]) =>
      (await import("./admin.ts")).printManifests({ image, ...(namespace ? { namespace } : {}) }),
  },
  health: {
    usage: "health",
    summary: "whether the server on this machine is ready: exit code 0 or 1, for container health checks",
    run: async () => (await import("./admin.ts")).health(loadConfig()),
  },
  version: {
    usage: "version",
    summary: "print the version",
    run: async () => {
      console.log(VERSION);
      return 0;
    },
  },
};

function overview(commands = Object.values(COMMANDS)): string {
  const rows = commands.map(({ usage, summary }) => `  ${usage.padEnd(34)}${summary}`);
  return [
    `DevPocket ${VERSION}: development environments that every device can reach`,
    `Usage: ${program()} COMMAND`,
    rows.join("\n"),
    `${program()} COMMAND --help says more; serve --help lists the configuration.`,
  ].join("\n\n");
}

function helpOf({ usage, summary, help }: Command): string {
  return [`Usage: ${program()} ${usage}`, summary, ...(help ? [help] : [])].join("\n\n");
}

async function main(argv: string[]): Promise<number> {
  const { values, positionals } = parseArgs({
    args: argv,
    options: {
      help: { type: "boolean", short: "h" },
      version: { type: "boolean" },
      url: { type: "string" },
      user: { type: "string" },
      template: { type: "string" },
    },
    allowPositionals: true,
  });
  if (values.version) return run(COMMANDS.version, [], values);
  const [first, second, ...rest] = positionals;
  if (first === undefined) {
    if (values.help) return print(overview());
    return run(COMMANDS.serve, [], values);
  }
  const pair = COMMANDS[`${first} ${second}`];
  const command = pair ?? COMMANDS[first];
  if (!command) {
    const related = Object.entries(COMMANDS).filter(([name]) => name.startsWith(`${first} `));
    const text = overview(related.length > 0 ? related.map(([, one]) => one) : undefined);
    if (values.help && related.length > 0) return print(text);
    return refuse(`unknown command "${positionals.join(" ")}"`, text);
  }
  if (values.help) return print(helpOf(command));
  return run(command, pair ? rest : positionals.slice(1), values);
}

function run(command: Command | undefined, values: string[], options: Options): Promise<number> | number {
  if (!command) return refuse("no such command", overview());
  const expected = command.arguments ?? [];
  const missing = expected.filter((name) => !name.startsWith("["))[values.length];
  const unexpected = values[expected.length];
  const foreign = OPTIONS.find((name) => options[name] !== undefined && !command.options?.includes(name));
  if (missing !== undefined) return refuse(`${missing} is missing`, helpOf(command));
  if (unexpected !== undefined) return refuse(`"${unexpected}" is one argument too many`, helpOf(command));
  if (foreign !== undefined) return refuse(`--${foreign} is no option of this command`, helpOf(command));
  return command.run(values, options);
}

function refuse(fault: string, help: string): number {
  console.error(`devpocket: ${fault}\n\n${help}`);
  return 2;
}

function print(text: string): number {
  console.log(text);
  return 0;
}

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  // A wrong call or configuration is one line; anything else is a fault of ours and shows where.
  const known = error instanceof ConfigError || (error instanceof Error && "code" in error);
  console.error(known && error instanceof Error ? `devpocket: ${error.message}` : error);
  process.exitCode = known ? 2 : 1;
}
if (process.exitCode !== undefined) process.exit();
