import type { TestClient } from "../harness.ts";
import { until } from "../until.ts";
import { asSeen, inTerminal, reaches, type Seen, template } from "./cluster.ts";

/** What an owner wants of an environment, by id, and what its log and its workspace have to show for it. */
export interface Wanted {
  name: string;
  status: "running" | "stopped" | "terminated";
  /** How often its startup commands must have run, where that can be said. */
  runs?: number;
}

/** Statuses that pass while an environment comes up; those of the verbs begin with the verb. */
const COMING_UP = ["provisioning", "installing", "configuring"];

/** Notes every run in the workspace, and writes numbered lines from then on. */
const COMMANDS = [
  "echo ran >>runs; sleep 1.5",
  "(i=0; while :; do i=$((i+1)); echo line $i >/proc/1/fd/1; sleep 0.2; done) >/dev/null 2>&1 &",
];

export async function addTemplate(client: TestClient): Promise<void> {
  await client.post("/api/v1/templates", template("counting", COMMANDS), 201);
}

/**
 * Brings environments to every passing state at once, and at that moment does `fault`. Its verbs are
 * answered before: what their owner wants is in the books.
 *
 * @returns what is wanted of each
 */
export async function inEveryPassingState(
  client: TestClient,
  prefix: string,
  fault: () => Promise<void>,
): Promise<Map<string, Wanted>> {
  const wanted = new Map<string, Wanted>();
  const create = async (name: string, want: Omit<Wanted, "name"> = { status: "running", runs: 1 }) => {
    const body = { name: `${prefix}-${name}`, template: "counting" };
    const { id } = await client.post("/api/v1/environments", body, 201);
    wanted.set(String(id), { name, ...want });
    return String(id);
  };
  const [steady, stopping, restarting, ending] = await Promise.all([
    create("steady"),
    create("stopping", { status: "stopped", runs: 1 }),
    create("restarting", { status: "running", runs: 2 }),
    create("ending", { status: "terminated" }),
  ]);
  await Promise.all(
    [steady, stopping, restarting, ending].map((id) => reaches(client, id, "running", 90_000)),
  );

  // One after the other begins, until there is one in each state that passes by itself.
  const begun: string[] = [];
  for (let there: Seen[] = []; !COMING_UP.every((status) => there.some((one) => one.status === status)); ) {
    if (begun.length < 8) begun.push(await create(`coming-${begun.length}`));
    else if (there.every(({ status }) => status === "running")) break;
    await Bun.sleep(150);
    const all = (await client.list("/api/v1/environments?limit=200")).map(asSeen);
    there = all.filter(({ id }) => begun.includes(id));
  }
  await Promise.all([
    client.post(`/api/v1/environments/${stopping}/stop`),
    client.post(`/api/v1/environments/${restarting}/restart`),
    client.delete(`/api/v1/environments/${ending}`),
    create("creating"),
  ]);
  await fault();
  return wanted;
}

/** Waits until everything is where its owner wants it, and checks that nothing was done twice. */
export async function allAreWhereTheyShouldBe(
  client: TestClient,
  wanted: Map<string, Wanted>,
  timeoutMs = 120_000,
): Promise<void> {
  let astray: string[] = [];
  const settled = async () => {
    astray = [];
    for (const [id, { name, status }] of wanted) {
      const is = asSeen(await client.get(`/api/v1/environments/${id}`));
      const calm = is.status === status && (status !== "running" || is.message === null);
      if (!calm) astray.push(`${name} is ${is.status} (${is.message}), not ${status}`);
    }
    return astray.length === 0;
  };
  await until(settled, { timeoutMs, intervalMs: 300, message: () => astray.join("; ") });

  const running = [...wanted].filter(([, { status }]) => status === "running");
  await Promise.all(
    running.map(async ([id, { name, runs }]) => {
      const ran = (await inTerminal(client, id, "cat runs")).trim().split("\n").length;
      if (runs !== undefined && ran !== runs) throw new Error(`${name}: its commands ran ${ran} times`);
      await logIsExact(client, id, name);
    }),
  );
}

/** Every numbered line of the last installation is in the log, once and in order. */
async function logIsExact(client: TestClient, id: string, name: string): Promise<void> {
  const { logs } = await client.get(`/api/v1/environments/${id}/logs?lines=1000`);
  const messages = (logs as { message: string }[]).map(({ message }) => message);
  const from = messages.findLastIndex((message) => message.startsWith("==> [1/2] echo ran"));
  const numbers = messages
    .slice(Math.max(0, from))
    .flatMap((message) => /^line (\d+)$/.exec(message)?.[1] ?? [])
    .map(Number);
  const first = from < 0 ? (numbers[0] ?? 1) : 1;
  const wrong = numbers.findIndex((number, index) => number !== first + index);
  if (wrong >= 0) {
    const around = numbers.slice(Math.max(0, wrong - 2), wrong + 3).join(", ");
    const begins = messages.slice(Math.max(0, from - 2), from + 6).join(" | ");
    throw new Error(`${name}: its log has ${around}; it begins with ${begins}`);
  }
  if (numbers.length === 0)
    throw new Error(`${name}: its log has no lines: ${messages.slice(-5).join(" | ")}`);
}
