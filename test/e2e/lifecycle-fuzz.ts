import { Database } from "bun:sqlite";
import { expect } from "bun:test";
import { rmSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { TestClient, TestServer, temporaryFolder } from "../harness.ts";
import { until } from "../until.ts";
import { filesIn, processesWith } from "./leftovers.ts";

/*
 * Several clients ask for random things of the same few environments at once while the server is killed
 * again and again; afterwards every environment has to be where its owner wanted it, and nothing is left.
 */

const ENVIRONMENTS = 4;
const CLIENTS = 6;
const LONGEST_LIFE_MS = 1200;
const PAUSE_MS = 60;

const VERBS = ["start", "stop", "restart", "recover", "delete"] as const;
type Verb = (typeof VERBS)[number] | "create";
type Wanted = "running" | "stopped" | "terminated";

const LEADS_TO: Record<Verb, Wanted> = {
  create: "running",
  start: "running",
  restart: "running",
  recover: "running",
  stop: "stopped",
  delete: "terminated",
};

/** What a client may be answered; anything else is a fault. */
const ACCEPTED = [200, 201, 204];
const REFUSED = [400, 404, 409];

/** One request that was accepted, or that the server was killed under: it may have been. */
interface Asked {
  wanted: Wanted;
  certain: boolean;
  beganAt: number;
  endedAt: number;
}

interface Subject {
  id: string;
  history: Asked[];
}

export interface FuzzOptions {
  seed: number;
  kills: number;
  sandbox: boolean;
}

export async function fuzzLifecycle({ seed, kills, sandbox }: FuzzOptions): Promise<void> {
  const random = mulberry32(seed);
  const dataDir = temporaryFolder();
  const tools = sandbox ? undefined : pathWithoutSandbox();
  // Found in every command line of the environments' own processes.
  const marker = `86${String(seed).padStart(8, "0").slice(-8)}`;
  const start = () => TestServer.start({ dataDir, ...(tools ? { environment: { PATH: tools } } : {}) });
  const world: World = { server: await start(), token: "", subjects: [], names: 0, faults: [], random };
  try {
    const admin = await world.server.signedIn();
    world.token = admin.token;
    await admin.post("/api/v1/templates", template(marker), 201);
    for (let life = 0; life <= kills; life++) {
      const until = performance.now() + random() * LONGEST_LIFE_MS;
      await Promise.all(Array.from({ length: CLIENTS }, () => pester(world, until)));
      // The last requests are under way when it is killed.
      const last = Array.from({ length: CLIENTS }, () => askSomething(world));
      await Bun.sleep(random() * 20);
      await world.server.kill();
      await Promise.all(last);
      world.server = await start();
      expect(world.faults).toEqual([]);
    }
    await everyoneIsWhereWanted(world);
    await nothingIsLeft(world, dataDir, marker);
    expect(world.server.output.text).not.toContain("unexpected error");
    expect(await world.server.stop()).toBe(0);
  } finally {
    await world.server.kill();
    rmSync(dataDir, { recursive: true, force: true });
    if (tools) rmSync(tools, { recursive: true, force: true });
  }
}

interface World {
  server: TestServer;
  token: string;
  subjects: Subject[];
  names: number;
  faults: string[];
  random: () => number;
}

function template(marker: string) {
  return {
    name: "fuzzed",
    display_name: "Fuzzed",
    description: "Leaves jobs behind",
    category: "operating_system",
    docker_image: null,
    default_port: 8080,
    default_resources: { cpu: "100m", memory: "64Mi", storage: "1Gi" },
    startup_commands: [`setsid sleep ${marker} > /dev/null 2>&1 &`, "sleep 0.1", "echo once >> starts"],
  };
}

async function pester(world: World, until: number): Promise<void> {
  while (performance.now() < until) {
    await askSomething(world);
    await Bun.sleep(world.random() * PAUSE_MS);
  }
}

async function askSomething(world: World): Promise<void> {
  const { random, subjects } = world;
  const living = subjects.filter(({ history }) => !history.some(isCertainEnd));
  if (living.length < ENVIRONMENTS && random() < 0.5) return create(world);
  const subject = living[Math.floor(random() * living.length)];
  if (!subject) return;
  const kind = random();
  if (kind < 0.2) return type(world, subject);
  // Deletion is rare: most verbs are about what lives on.
  const verb = kind < 0.25 ? "delete" : VERBS[Math.floor(random() * 4)];
  if (!verb) return;
  const path = `/api/v1/environments/${subject.id}`;
  const request = verb === "delete" ? ask(world, "DELETE", path) : ask(world, "POST", `${path}/${verb}`, {});
  await record(subject, verb, request);
}

async function create(world: World): Promise<void> {
  world.names += 1;
  const beganAt = performance.now();
  const body = { name: `fuzz-${world.names}`, template: "fuzzed" };
  const answer = await ask(world, "POST", "/api/v1/environments", body);
  // One of which nobody learnt the id is found by its name at the end.
  if (answer?.accepted !== true) return;
  const history = [{ wanted: "running" as const, certain: true, beganAt, endedAt: performance.now() }];
  world.subjects.push({ id: String(answer.body.id), history });
}

async function record(subject: Subject, verb: Verb, request: Promise<Answer | undefined>): Promise<void> {
  const asked = { wanted: LEADS_TO[verb], beganAt: performance.now() };
  const answer = await request;
  if (answer?.accepted === false) return;
  subject.history.push({ ...asked, certain: answer !== undefined, endedAt: performance.now() });
}

/** Leaves a job behind in a terminal, where there is one to be had. */
async function type({ server, token, random }: World, { id }: Subject): Promise<void> {
  const client = new TestClient(server.url, token);
  try {
    const terminal = await client.terminal(id);
    terminal.type("setsid nohup sleep 3600 > /dev/null 2>&1 &\r");
    await Bun.sleep(random() * PAUSE_MS);
    terminal.close();
  } catch {
    // The server was killed meanwhile.
  }
}

interface Answer {
  accepted: boolean;
  body: Record<string, unknown>;
}

/** Undefined: the server was killed before it had answered. */
async function ask(world: World, method: string, path: string, body?: unknown): Promise<Answer | undefined> {
  try {
    const response = await new TestClient(world.server.url, world.token).raw(method, path, body);
    const text = await response.text();
    const accepted = ACCEPTED.includes(response.status);
    if (!accepted && !REFUSED.includes(response.status)) {
      world.faults.push(`${method} ${path}: ${response.status} ${text}`);
    }
    return { accepted, body: accepted && text !== "" ? JSON.parse(text) : {} };
  } catch {
    return undefined;
  }
}

function isCertainEnd({ wanted, certain }: Asked): boolean {
  return wanted === "terminated" && certain;
}

/** Where it may be: what no other accepted request has certainly come after. */
function possibleEnds(history: Asked[]): Set<Wanted> {
  if (history.some(isCertainEnd)) return new Set(["terminated"]);
  const last = history.filter(
    (one) => !history.some((other) => other.certain && other.beganAt > one.endedAt),
  );
  return new Set(last.map(({ wanted }) => wanted));
}

async function everyoneIsWhereWanted({ server, token, subjects }: World): Promise<void> {
  const client = new TestClient(server.url, token);
  for (const { id, history } of subjects) {
    const wanted = possibleEnds(history);
    let status = "";
    const reached = async () => {
      status = String((await client.get(`/api/v1/environments/${id}`)).status);
      return [...wanted].some((one) => one === status);
    };
    await until(reached, {
      timeoutMs: 30_000,
      message: () => `${id} is ${status} instead of ${[...wanted].join(" or ")}: ${JSON.stringify(history)}`,
    });
  }
}

async function nothingIsLeft({ server, token }: World, dataDir: string, marker: string): Promise<void> {
  const client = new TestClient(server.url, token);
  for (const { id } of await client.list("/api/v1/environments?limit=200")) {
    await client.delete(`/api/v1/environments/${id}`, 204);
  }
  const places = ["workspaces", "local"].map((name) => join(dataDir, name));
  const folders = () =>
    places.flatMap(filesIn).filter((path) => /^[0-9a-f]{24}/.test(path) || path.includes("/trial"));
  await until(() => folders().length === 0, { timeoutMs: 30_000, message: () => folders().join("\n") });
  const processes = () => [...processesWith(`sleep\0${marker}`), ...processesWith(`${dataDir}/workspaces`)];
  await until(() => processes().length === 0, { timeoutMs: 30_000, message: () => processes().join(" ") });
  const database = new Database(join(dataDir, "devpocket.db"), { readonly: true });
  expect(database.query("pragma integrity_check").all()).toEqual([{ integrity_check: "ok" }]);
  expect(database.query("pragma foreign_key_check").all()).toEqual([]);
  const torn = "select count(*) as n from environments where torn_down_at is null";
  await until(() => database.query<{ n: number }, []>(torn).get()?.n === 0, { timeoutMs: 30_000 });
  database.close();
}

/** A PATH on which there is no bubblewrap. */
function pathWithoutSandbox(): string {
  const folder = temporaryFolder();
  symlinkSync(process.execPath, join(folder, "bun"));
  return folder;
}

/** Figures from 0 to 1 that are the same for the same seed. */
function mulberry32(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
