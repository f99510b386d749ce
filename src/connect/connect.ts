import { type Api, ConnectError, field, signIn } from "./api.ts";
import { Asker } from "./ask.ts";
import { joinTerminal } from "./terminal.ts";

/*
 * `devpocket connect`: the shortest way to a shell in an environment, for a newcomer and for anyone with
 * nothing but the binary. An ordinary client of the public API.
 */

export interface ConnectOptions {
  /** Of the server, without a slash at the end. */
  url: string;
  user: string | undefined;
  /** Name of the environment; made from `template` when there is none. */
  name: string;
  template: string;
}

/** At what is just stopping. */
const LOOK_AGAIN_MS = 500;

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
    const asker = new Asker();
    const name = options.user ?? (await asker.ask("Username: "));
    const password = await asker.ask("Password: ", { hidden: true });
    const api = await signIn(options.url, name, password);
    const environment = await bringUp(api, options);
    process.stderr.write(`Opening ${environment.name}. Ctrl-] leaves; connect again to come back to it.\n`);
    const session = await leftSession(api, environment);
    return await joinTerminal(api, environment.id, { session, typed: asker.rest });
  } catch (error) {
    if (!(error instanceof ConnectError)) throw error;
    process.stderr.write(`devpocket: ${error.message}\n`);
    return 1;
  }
}

async function bringUp({ call }: Api, { name, template }: ConnectOptions): Promise<Environment> {
  const find = async () =>
    (await list(call, "/api/v1/environments?limit=200")).map(asEnvironment).find((one) => one.name === name);
  let found = await find();
  if (found?.status === "stopping") {
    process.stderr.write(`The environment "${name}" is just stopping; it is started again then\n`);
  }
  // No verb leads on from there: it must have stopped, or failed to, first.
  while (found?.status === "stopping") {
    await Bun.sleep(LOOK_AGAIN_MS);
    found = await find();
  }
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
