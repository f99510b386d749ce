import { existsSync, lstatSync, mkdirSync, readlinkSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { SYSTEM_PATH } from "../startup.ts";
import { readProcess, scanProcesses, signal } from "./processes.ts";

/*
 * Environments in namespaces of their own, by bubblewrap. Two user namespaces lie inside one another: in the
 * outer one bwrap is root, as it has to be to mount /dev/pts, and stays as the reaper (pid 1); in the inner
 * one everything of the environment runs as an ordinary user without capabilities. Terminals join both with
 * nsenter, so that all processes of an environment see each other. The network is the host's.
 */

/** Where an environment's script, variables and shell settings are in its sandbox. */
export const SANDBOX_RUN_DIR = "/run/devpocket";
export const SANDBOX_WORKSPACE = "/workspace";

const USER_ID = 1000;
const TRIAL_LIMIT_MS = 5000;

/** What of /etc programs need. The rest, keys and password hashes among it, is not there. */
const ETC = [
  "alternatives",
  "bash.bashrc",
  "bash_completion.d",
  "ca-certificates",
  "ca-certificates.conf",
  "crypto-policies",
  "debian_version",
  "fonts",
  "gai.conf",
  "gitconfig",
  "host.conf",
  "hosts",
  "inputrc",
  "java",
  "ld.so.cache",
  "ld.so.conf",
  "ld.so.conf.d",
  "locale.alias",
  "locale.conf",
  "localtime",
  "magic",
  "mime.types",
  "nanorc",
  "nsswitch.conf",
  "os-release",
  "pki/ca-trust",
  "pki/tls/certs",
  "profile",
  "profile.d",
  "protocols",
  "python3",
  "resolv.conf",
  "rpc",
  "services",
  "shells",
  "ssl/certs",
  "ssl/openssl.cnf",
  "terminfo",
  "timezone",
  "vim",
  "xattr.conf",
];

/** Root of the host, if the server runs as it, could change the host there even without capabilities. */
const PROC_COVERED = ["acpi", "asound", "bus", "fs", "irq", "mtrr", "scsi", "sys", "sysrq-trigger"];

const PASSWD = `root:x:0:0:root:/root:/usr/sbin/nologin
devpocket:x:${USER_ID}:${USER_ID}:DevPocket:${SANDBOX_WORKSPACE}:/bin/sh
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
`;
const GROUP = `root:x:0:\ndevpocket:x:${USER_ID}:\nnogroup:x:65534:\n`;

export interface SandboxOptions {
  hostname: string;
  /** Paths on the host. */
  workspace: string;
  runDir: string;
}

export interface Sandbox {
  /** Runs `command` as the environment's first process. Everything in it ends with it, or with the server. */
  wrap(command: string[], options: SandboxOptions): string[];
  /** Runs `command` in the sandbox whose pid 1 is `init` on the host. */
  join(command: string[], init: number): string[];
}

export type SandboxTrial = { sandbox: Sandbox; reason: null } | { sandbox: null; reason: string };

interface Tools {
  bwrap: string;
  nsenter: string;
  unshare: string;
}

/**
 * Tries out whether environments can be sandboxed here.
 *
 * @param folder private, kept: holds the sandbox's passwd and group files
 * @param hidden a folder of which nothing may be seen in the sandbox, `folder` being in it; both real paths
 */
export async function trySandbox(folder: string, hidden: string): Promise<SandboxTrial> {
  const bwrap = Bun.which("bwrap");
  const nsenter = Bun.which("nsenter");
  const unshare = Bun.which("unshare");
  if (!bwrap) return { sandbox: null, reason: "bubblewrap (bwrap) is not installed" };
  if (!nsenter || !unshare)
    return { sandbox: null, reason: "util-linux (nsenter, unshare) is not installed" };
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  writeFileSync(join(folder, "passwd"), PASSWD);
  writeFileSync(join(folder, "group"), GROUP);
  const sandbox = sandboxOf({ bwrap, nsenter, unshare }, folder, hidden);
  const reason = await tryOut(sandbox, folder);
  return reason === null ? { sandbox, reason } : { sandbox: null, reason };
}

function sandboxOf(tools: Tools, folder: string, hidden: string): Sandbox {
  const system = systemFolders();
  const outer = ["--user", "--mount", "--pid", "--ipc", "--uts"];
  return {
    wrap: (command, options) => [
      tools.bwrap,
      ...["--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts"],
      ...["--hostname", options.hostname, "--uid", "0", "--gid", "0"],
      // Needed to map root of the outer namespace into the inner one; gone with the first exec in there.
      ...["--cap-drop", "ALL", "--cap-add", "CAP_SETFCAP"],
      ...["--die-with-parent", "--clearenv"],
      ...["--setenv", "PATH", SYSTEM_PATH],
      ...system,
      ...[
        "--ro-bind",
        join(folder, "passwd"),
        "/etc/passwd",
        "--ro-bind",
        join(folder, "group"),
        "/etc/group",
      ],
      ...(isUnder(hidden, "/usr") ? ["--tmpfs", hidden] : []),
      ...["--proc", "/proc", ...PROC_COVERED.flatMap((name) => covered(`/proc/${name}`))],
      ...["--dev", "/dev", "--tmpfs", "/tmp", "--tmpfs", "/var/tmp", "--tmpfs", "/run"],
      ...["--ro-bind", options.runDir, SANDBOX_RUN_DIR, "--bind", options.workspace, SANDBOX_WORKSPACE],
      ...["--remount-ro", "/", "--chdir", SANDBOX_WORKSPACE, "--"],
      ...[tools.unshare, "--user", `--map-user=${USER_ID}`, `--map-group=${USER_ID}`, "--"],
      ...command,
    ],
    // Pid 2 is the sandbox's first process, in the inner namespace.
    join: (command, init) => [
      ...[tools.nsenter, `--target=${init}`, "--preserve-credentials", ...outer, "--"],
      ...[tools.nsenter, "--target=2", "--preserve-credentials", "--user", "--"],
      ...["setpriv", "--no-new-privs", "--"],
      ...command,
    ],
  };
}

/** The arguments that show the system's folders read-only, as they are on this host. */
function systemFolders(): string[] {
  const shown = ["--ro-bind", "/usr", "/usr"];
  for (const path of ["/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"]) {
    const entry = lstatSync(path, { throwIfNoEntry: false });
    if (entry?.isSymbolicLink()) shown.push("--symlink", readlinkSync(path), path);
    else if (entry?.isDirectory()) shown.push("--ro-bind", path, path);
  }
  for (const name of ETC) {
    if (existsSync(`/etc/${name}`)) shown.push("--ro-bind", `/etc/${name}`, `/etc/${name}`);
  }
  return shown;
}

function covered(path: string): string[] {
  return existsSync(path) ? ["--ro-bind", path, path] : [];
}

function isUnder(path: string, folder: string): boolean {
  return path === folder || path.startsWith(`${folder}/`);
}

/**
 * The pid on the host of the sandbox's pid 1, by the pid of the `bwrap` that was started; of this one's only
 * child, that is. Undefined while there is none.
 */
export async function findInit(bwrapPid: number): Promise<number | undefined> {
  return await onlyChild(bwrapPid);
}

/** The first process of the environment, the only one that pid 1 has started itself at that time. */
export async function findSupervisor(init: number): Promise<number | undefined> {
  return await onlyChild(init);
}

async function onlyChild(pid: number): Promise<number | undefined> {
  const file = Bun.file(`/proc/${pid}/task/${pid}/children`);
  try {
    const first = Number.parseInt(await file.text(), 10);
    return Number.isInteger(first) ? first : undefined;
  } catch {
    // Kernels without CONFIG_PROC_CHILDREN.
    const children = (await scanProcesses()).filter(({ parent }) => parent === pid);
    return children[0]?.pid;
  }
}

// The hidden folder itself may be there, empty, where another is mounted over it.
const TRIAL = `cd ${SANDBOX_WORKSPACE} && touch x && [ "$(id -u)" = ${USER_ID} ] || exit
[ ! -e "$1" ] || { echo "the data folder can be seen in it" >&2; exit 1; }`;

/** Null, or why it does not work: the whole way is gone once, a terminal's included. */
async function tryOut(sandbox: Sandbox, folder: string): Promise<string | null> {
  const workspace = join(folder, "trial");
  mkdirSync(workspace, { recursive: true, mode: 0o700 });
  const env = { PATH: SYSTEM_PATH };
  const first = Bun.spawn(
    sandbox.wrap(["sh", "-c", "echo ready; read -r line"], {
      hostname: "trial",
      workspace,
      runDir: workspace,
    }),
    { env, stdin: "pipe", stdout: "pipe", stderr: "pipe" },
  );
  const timer = setTimeout(() => signal(first.pid, "SIGKILL"), TRIAL_LIMIT_MS);
  try {
    const { value } = await first.stdout.getReader().read();
    if (!value) return `bubblewrap does not work here: ${await firstLine(first.stderr)}`;
    const init = await findInit(first.pid);
    if (init === undefined || !(await readProcess(init))) return "the sandbox's first process was not found";
    const joined = Bun.spawn(sandbox.join(["sh", "-c", TRIAL, "sh", folder], init), {
      env,
      stdin: "ignore",
      stdout: "ignore",
      stderr: "pipe",
    });
    const [code, said] = await Promise.all([joined.exited, firstLine(joined.stderr)]);
    return code === 0 ? null : `a sandbox can't be entered here: ${said}`;
  } finally {
    await first.stdin.end();
    await first.exited;
    clearTimeout(timer);
    rmSync(workspace, { recursive: true, force: true });
  }
}

async function firstLine(stream: ReadableStream<Uint8Array>): Promise<string> {
  const text = await new Response(stream).text();
  return text.split("\n")[0]?.trim() || "no reason given";
}
