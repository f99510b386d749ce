import { createInterface } from "node:readline/promises";
import { Writable } from "node:stream";
import { type Api, ConnectError, field, signIn } from "./api.ts";
import { joinTerminal } from "./terminal.ts";

/*
 * `devpocket connect`: the shortest way to a shell in an environment, for a newcomer and for anyone with
 * nothing but the binary. An ordinary client of the public API.
 */

export interface ConnectOptions {
  url: string;
  user: string | undefined;
  /** Name of the environment; made from `template` when there is none. */
  name: string;
  template: string;
}

interface Environment {
  id: string;
  name: string;
  status: string;
}

/**
 * Signs in, brings the environment up and joins this terminal to its shell: to the one that was left last
 * where there is one.
 *
 * @returns the exit code
 */
export async function connect(options: ConnectOptions): Promise<number> {
  try {
    const name = options.user ?? (await ask("Username: "));
    const password = await ask("Password: ", { hidden: true });
    const api = await signIn(options.url, name, password);
    const environment = await bringUp(api, options);
    process.stderr.write(`Opening ${environment.name}. Ctrl-] leaves; connect again to come back to it.\n`);
    return await joinTerminal(api, environment.id, await leftSession(api, environment));
  } catch (error) {
    if (!(error instanceof ConnectError)) throw error;
    process.stderr.write(`devpocket: ${error.message}\n`);
    return 1;
  }
}

async function bringUp({ call }: Api, { name, template }: ConnectOptions): Promise<Environment> {
  const found = (await list(call, "/api/v1/environments?limit=200"))
    .map(asEnvironment)
    .find((one) => one.name === name);
  if (!found) {
    process.stderr.write(`Making the environment "${name}" from the template "${template}"\n`);
    return asEnvironment(await call("POST", "/api/v1/environments", { name, template }));
  }
  if (found.status === "stopped") await call("POST", `/api/v1/environments/${found.id}/start`);
  if (found.status === "error") await call("POST", `/api/v1/environments/${found.id}/recover`);
  return found;
}

/** The newest shell that nobody looks at. */
async function leftSession({ call }: Api, { id, status }: Environment): Promise<string | undefined> {
  if (status !== "running") return undefined;
  const sessions = await list(call, `/api/v1/environments/${id}/terminals`);
  const left = sessions.find((session) => field(session, "attached") === "0");
  return left === undefined ? undefined : field(left, "session_id");
}

async function list(call: Api["call"], path: string): Promise<unknown[]> {
  const answer = await call("GET", path);
  return Array.isArray(answer) ? answer : [];
}

function asEnvironment(answer: unknown): Environment {
  return { id: field(answer, "id"), name: field(answer, "name"), status: field(answer, "status") };
}

/**
 * Asks at the terminal; a hidden answer is not echoed. Reads a line where standard input is no terminal.
 *
 * @throws ConnectError when there is no answer: the input has ended, or Ctrl-C
 */
async function ask(question: string, { hidden = false } = {}): Promise<string> {
  if (!process.stdin.isTTY) {
    process.stderr.write(question);
    const line = await readLine();
    if (line === undefined) throw new ConnectError(`no answer to "${question.trim()}"`);
    return line;
  }
  const muted = new Writable({ write: (_chunk, _encoding, done) => done() });
  const prompt = createInterface({
    input: process.stdin,
    output: hidden ? muted : process.stderr,
    terminal: true,
  });
  const unanswered = new Promise<never>((_resolve, reject) => {
    const none = () => reject(new ConnectError(`no answer to "${question.trim()}"`));
    prompt.once("close", none).once("SIGINT", none);
  });
  // Asked only now that the terminal echoes nothing any more.
  process.stderr.write(question);
  try {
    return await Promise.race([prompt.question(""), unanswered]);
  } finally {
    prompt.close();
    if (hidden) process.stderr.write("\n");
  }
}

/** The next line of standard input, and nothing of what follows it; undefined at its end. */
function readLine(): Promise<string | undefined> {
  const { stdin } = process;
  let read = Buffer.alloc(0);
  return new Promise((resolve) => {
    const done = (line: string | undefined) => {
      stdin.off("data", onData).off("end", onEnd).pause();
      resolve(line);
    };
    const onData = (bytes: Buffer) => {
      read = Buffer.concat([read, bytes]);
      const end = read.indexOf("\n");
      if (end < 0) return;
      done(read.subarray(0, end).toString().replace(/\r$/, ""));
      if (end + 1 < read.length) stdin.unshift(read.subarray(end + 1));
    };
    const onEnd = () => done(read.length > 0 ? read.toString() : undefined);
    stdin.on("data", onData).once("end", onEnd).resume();
  });
}
