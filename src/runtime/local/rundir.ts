import { chmod, mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { DEFAULT_VARIABLES, type StartupOptions, shellQuote, startupScript } from "../startup.ts";

/* The folder that an environment's processes may read: the startup script, variables, shell settings. */

export interface RunDirOptions {
  name: string;
  variables: Record<string, string>;
  startup: StartupOptions;
}

/**
 * Variables are set inside by a shell and never given to the programs that make the sandbox: LD_PRELOAD
 * would run the owner's code outside of it.
 */
export async function writeRunDir(folder: string, options: RunDirOptions): Promise<void> {
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const files = {
    "variables.sh": variablesScript(options),
    "startup.sh": startupScript(options.startup),
    bashrc: BASHRC,
    shrc: SHRC,
  };
  for (const [name, text] of Object.entries(files)) {
    await writeFile(join(folder, name), text, { mode: 0o600 });
  }
  await chmod(folder, 0o700);
}

/** Runs the startup script; `runDir` as the environment's processes see it. */
export function startupCommand(runDir: string): string[] {
  return ["/bin/sh", "-c", '. "$1/variables.sh"; exec /bin/sh "$1/startup.sh"', "sh", runDir];
}

/** An interactive shell in the workspace: bash where there is one. */
export function shellCommand(runDir: string, workspace: string): string[] {
  return ["/bin/sh", "-c", SHELL, "sh", runDir, workspace];
}

// Sets no variables of its own: they could be the owner's.
const SHELL = `cd "$2"
. "$1/variables.sh"
if command -v bash >/dev/null; then
  SHELL=$(command -v bash) exec bash --rcfile "$1/bashrc" -i
fi
SHELL=/bin/sh ENV="$1/shrc" exec /bin/sh -i`;

// The owner's own settings come last: they win.
const BASHRC = `[ ! -r /etc/bash.bashrc ] || . /etc/bash.bashrc
PS1='\\[\\e[01;32m\\]devpocket@$DEVPOCKET_ENVIRONMENT\\[\\e[00m\\]:\\[\\e[01;34m\\]$PWD\\[\\e[00m\\]\\$ '
[ ! -r ~/.bashrc ] || . ~/.bashrc
`;

const SHRC = `PS1='devpocket@$DEVPOCKET_ENVIRONMENT:$PWD$ '
`;

function variablesScript({ name, variables, startup }: RunDirOptions): string {
  const all = {
    ...DEFAULT_VARIABLES,
    HOME: startup.workspace,
    USER: "devpocket",
    LOGNAME: "devpocket",
    DEVPOCKET_ENVIRONMENT: name,
    ...variables,
  };
  return (
    Object.entries(all)
      .filter(([key]) => /^[A-Za-z_][A-Za-z0-9_]*$/.test(key))
      // `command`: a variable that this shell keeps for itself (UID in bash) must not end it.
      .map(([key, value]) => `command export ${key}=${shellQuote(value)} 2>/dev/null\n`)
      .join("")
  );
}
