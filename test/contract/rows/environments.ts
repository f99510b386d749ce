import { expect } from "bun:test";
import { until } from "../../until.ts";
import type { Table } from "../row.ts";
import { anyId, anyNumber, anyText, anyTime, type Person, type Site } from "../site.ts";
import { adminOf, type World } from "../world.ts";

const CREATE = "POST /api/v1/environments";
const LIST = "GET /api/v1/environments";
const GET = "GET /api/v1/environments/{environment_id}";
const UPDATE = "PUT /api/v1/environments/{environment_id}";
const DELETE = "DELETE /api/v1/environments/{environment_id}";
const LOGS = "GET /api/v1/environments/{environment_id}/logs";
const METRICS = "GET /api/v1/environments/{environment_id}/metrics";
const verb = (name: string) => `POST /api/v1/environments/{environment_id}/${name}`;

const STATUSES = [
  "creating",
  "provisioning",
  "installing",
  "configuring",
  "running",
  "stopping",
  "stopped",
  "restarting",
  "error",
  "terminated",
];

const WAIT = { Prefer: "wait=30" };

const of = (as: Person, environment_id: string) => ({ as, params: { environment_id } });

const refusedState = (name: string) => ({
  detail: `Cannot ${name} environment in current state`,
  errors: [{ field: "status", message: anyText, code: "invalid_state" }],
});

/** An environment in error: its only command has taken its container's life. */
async function failed({ main }: World, as: Person): Promise<string> {
  const { body } = await main.call(CREATE, {
    as,
    body: { name: "fails", template: "crashing" },
    headers: WAIT,
    status: 201,
    answer: { status: "error", status_message: anyText },
  });
  return body.id;
}

async function remove(site: Site, as: Person, id: string): Promise<void> {
  await site.call(DELETE, { ...of(as, id), headers: WAIT, status: 204 });
}

export const ENVIRONMENTS: Table = [
  [
    "R 296, R 317, R 1173, R 2076, E 96, E 314, D object, external_url",
    "creating answers at once: 201 with the whole object, status creating",
    async ({ main, ada }) => {
      const body = {
        name: "my-python-env",
        template: "python",
        resources: { cpu: "500m", memory: "1Gi", storage: "10Gi" },
        environment_variables: { PYTHON_VERSION: "3.11" },
      };
      const { template: _, ...kept } = body;
      const created = await main.call(CREATE, {
        as: ada,
        body,
        status: 201,
        answer: {
          ...kept,
          id: anyId,
          description: null,
          template_id: anyId,
          template_name: "Python 3.11",
          status: "creating",
          docker_image: "python:3.11-slim",
          port: 8080,
          installation_completed: false,
          created_at: anyTime,
          updated_at: anyTime,
          last_activity: null,
          cpu_usage: 0,
          memory_usage: 0,
          storage_usage: null,
          external_url: null,
          web_port: 8080,
          // D: the object
          cluster_id: anyId,
          status_message: null,
          progress: 0,
          restart_required: false,
        },
      });
      expect(created.headers.get("preference-applied")).toBeNull();
      await remove(main, ada, created.body.id);
    },
  ],
  [
    "R 1476, D POST body, rule 1",
    "template_id may be an id, name or slug; cluster_id an id or name; nulls are as good as absent",
    async ({ main, ada }) => {
      const { body: template } = await main.call("GET /api/v1/templates/{template_id}", {
        as: ada,
        params: { template_id: "python" },
        status: 200,
      });
      for (const asked of [
        { template_id: template.id },
        { template: "python-3.11" },
        { template_id: "python", template: null },
      ]) {
        const { body } = await main.call(CREATE, {
          as: ada,
          body: {
            name: "liberal",
            description: "Read liberally",
            cluster_id: "local",
            resources: { cpu: "250m", memory: null },
            environment_variables: null,
            ...asked,
          },
          status: 201,
          answer: {
            description: "Read liberally",
            template_id: template.id,
            resources: { cpu: "250m", memory: "1Gi", storage: "10Gi" },
            environment_variables: {},
          },
        });
        await remove(main, ada, body.id);
      }
    },
  ],
  [
    "R 1525, D POST body",
    "a template or cluster that there is not is 400",
    async ({ main, ada }) => {
      await main.call(CREATE, {
        as: ada,
        body: { name: "x", template: "nosuch" },
        status: 400,
        answer: { detail: "Template not found" },
      });
      await main.call(CREATE, {
        as: ada,
        body: { name: "x", template: "shell", cluster_id: "nosuch" },
        status: 400,
        answer: { errors: [{ field: "cluster_id" }] },
      });
    },
  ],
  [
    "R 1527, R 2307, D name, variables, resources",
    "what is no name, variable or quantity, or too much, is 422 on its field",
    async ({ main, bob }) => {
      const many = Object.fromEntries(Array.from({ length: 101 }, (_, n) => [`V${n}`, ""]));
      for (const [wrong, field] of [
        [{ name: "Has Capitals" }, "name"],
        [{ name: "-edge-" }, "name"],
        [{ name: "x".repeat(51) }, "name"],
        [{ name: "" }, "name"],
        [{ name: undefined }, "name"],
        [{ template: undefined }, "template"],
        [{ description: "x".repeat(501) }, "description"],
        [{ environment_variables: { "1A": "x" } }, "environment_variables.1A"],
        [{ environment_variables: { __dp_nonce: "x" } }, "environment_variables.__dp_nonce"],
        [{ environment_variables: JSON.parse('{"__proto__":"x"}') }, "environment_variables.__proto__"],
        [{ environment_variables: { A: 1 } }, "environment_variables.A"],
        [{ environment_variables: many }, "environment_variables"],
        [{ environment_variables: { A: "x".repeat(65 * 1024) } }, "environment_variables"],
        [{ resources: { cpu: "much" } }, "resources.cpu"],
        [{ resources: { memory: "0" } }, "resources.memory"],
      ] as const) {
        const body = { name: "fine", template: "shell", ...wrong };
        await main.call(CREATE, {
          as: bob,
          body,
          status: 422,
          answer: { errors: expect.arrayContaining([expect.objectContaining({ field })]) },
        });
      }
    },
  ],
  [
    "D resources",
    "over the plan's ceiling is 422 with the ceiling in the message; administrators have none",
    async ({ main, bob, admin }) => {
      for (const [field, value, ceiling] of [
        ["cpu", "1001m", "1000m"],
        ["memory", "3Gi", "2Gi"],
        ["storage", "21Gi", "20Gi"],
      ] as const) {
        await main.call(CREATE, {
          as: bob,
          body: { name: "big", template: "shell", resources: { [field]: value } },
          status: 422,
          answer: { errors: [{ field: `resources.${field}`, message: expect.stringContaining(ceiling) }] },
        });
      }
      const body = { name: "big", template: "shell", resources: { cpu: "8" } };
      const { body: created } = await main.call(CREATE, { as: admin, body, status: 201 });
      await remove(main, admin, created.id);
    },
  ],
  [
    "R 102, D POST body",
    "a plan that is full is 403 with the figures; a terminated environment is not counted",
    async ({ main }) => {
      const person = await main.person();
      const body = { name: "one", template: "shell" };
      const { body: first } = await main.call(CREATE, { as: person, body, status: 201 });
      await main.call(CREATE, {
        as: person,
        body: { ...body, name: "two" },
        status: 403,
        answer: {
          errors: [
            { field: "subscription_plan", message: expect.stringMatching(/free.*1/), code: "plan_limit" },
          ],
        },
      });
      await remove(main, person, first.id);
      const { body: second } = await main.call(CREATE, { as: person, body, status: 201 });
      await remove(main, person, second.id);
    },
  ],
  [
    "R 1265, R 2198, D POST body",
    "a name that is in use is 409, on renaming too; that of a terminated one is free",
    async ({ main, ada }) => {
      const answer = { errors: [{ field: "name" }] };
      await main.call(CREATE, { as: ada, body: { name: "adas", template: "shell" }, status: 409, answer });
      const { body } = await main.call(CREATE, {
        as: ada,
        body: { name: "other", template: "shell" },
        status: 201,
      });
      await main.call(UPDATE, { ...of(ada, body.id), body: { name: "adas" }, status: 409, answer });
      await remove(main, ada, body.id);
    },
  ],
  [
    "D POST body",
    "what the document proposes to send makes an environment",
    async ({ main }) => {
      const person = await main.person();
      const body = main.document.schema("EnvironmentCreate").example;
      const answer = await main.call(CREATE, { as: person, body, status: 201 });
      await remove(main, person, answer.body.id);
    },
  ],
  [
    "D POST body",
    "without a cluster that has room it is 503 with the code no_cluster",
    async ({ limited }) =>
      limited.call(CREATE, {
        as: await adminOf(limited),
        body: { name: "nowhere", template: "shell" },
        status: 503,
        answer: { errors: [{ field: "cluster_id", code: "no_cluster" }] },
      }),
  ],
  [
    "R 397, E 108",
    "the list is an array of one's own, newest first, without terminated ones",
    async ({ main, ada, adas, bob }) => {
      await main.call(LIST, {
        as: ada,
        status: 200,
        answer: [{ id: adas, name: "adas", status: "running" }],
      });
      expect((await main.call(LIST, { as: bob, status: 200 })).body).toEqual([]);
    },
  ],
  [
    "R 394, R 1444, E 106, D filters, status",
    "status takes each of the ten, and deleting, which finds nothing; anything else is 422",
    async ({ main, ada }) => {
      for (const status of STATUSES) {
        const { body } = await main.call(LIST, { as: ada, query: { status }, status: 200 });
        expect(new Set(body.map((one: { status: string }) => one.status))).toEqual(
          new Set(body.length > 0 ? [status] : []),
        );
      }
      expect((await main.call(LIST, { as: ada, query: { status: "deleting" }, status: 200 })).body).toEqual(
        [],
      );
      await main.call(LIST, { as: ada, query: { status: "gone" }, status: 422 });
    },
  ],
  [
    "R 395, E 107, D filters",
    "template_id is an id, name or slug",
    async ({ main, ada }) => {
      const names = async (template_id: string) =>
        (await main.call(LIST, { as: ada, query: { template_id }, status: 200 })).body.map(
          ({ name }: { name: string }) => name,
        );
      expect(await names("shell")).toContain("adas");
      expect(await names("rust-latest")).toEqual([]);
      expect(await names("nosuch")).toEqual([]);
    },
  ],
  [
    "R 430, R 1529, R 2237, E 113",
    "one's own is answered whole; an unknown one is 404",
    async ({ main, ada, adas }) => {
      await main.call(GET, {
        ...of(ada, adas),
        status: 200,
        answer: { id: adas, status: "running", installation_completed: true, progress: 100 },
      });
      await main.call(GET, { as: ada, status: 404, answer: { detail: "Environment not found" } });
    },
  ],
  [
    "R 443, R 452, E 119, D PUT",
    "an update replaces the variables, keeps what it does not name, and says that it waits for a restart",
    async ({ main, ada, adas }) => {
      await main.call(UPDATE, {
        ...of(ada, adas),
        body: {
          name: "adas",
          description: "Changed",
          resources: { cpu: "1000m", memory: "2Gi", storage: "20Gi" },
          environment_variables: { DEBUG: "true" },
        },
        status: 200,
        answer: {
          status: "running",
          description: "Changed",
          resources: { cpu: "1000m", memory: "2Gi", storage: "20Gi" },
          environment_variables: { DEBUG: "true" },
          restart_required: true,
        },
      });
      const kept = { description: "Changed", environment_variables: { DEBUG: "true" } };
      await main.call(UPDATE, { ...of(ada, adas), body: {}, status: 200, answer: kept });
      await main.call(verb("restart"), { ...of(ada, adas), headers: WAIT, status: 200 });
      const restarted = { status: "running", restart_required: false };
      await main.call(GET, { ...of(ada, adas), status: 200, answer: restarted });
    },
  ],
  [
    "D PUT, R 1616",
    "storage can't shrink: 422",
    ({ main, ada, adas }) =>
      main.call(UPDATE, {
        ...of(ada, adas),
        body: { resources: { storage: "1Gi" } },
        status: 422,
        answer: { errors: [{ field: "resources.storage" }] },
      }),
  ],
  [
    "R 478, R 1618, E 125, D DELETE, asynchronous verbs",
    "deleting is 204 in every state and again, terminated at once; the record can be read, nothing else done",
    async ({ main, ada }) => {
      const { body } = await main.call(CREATE, {
        as: ada,
        body: { name: "short-lived", template: "shell" },
        status: 201,
      });
      const one = of(ada, body.id);
      const { text } = await main.call(DELETE, { ...one, status: 204 });
      expect(text).toBe("");
      await main.call(DELETE, { ...one, headers: WAIT, status: 204 });
      await main.call(GET, { ...one, status: 200, answer: { status: "terminated" } });
      for (const name of ["start", "stop", "restart", "recover"]) {
        await main.call(verb(name), { ...one, status: 400, answer: refusedState(name) });
      }
      await main.call(UPDATE, { ...one, body: {}, status: 400, answer: refusedState("update") });
      const terminated = { as: ada, query: { status: "terminated" }, status: 200 };
      expect((await main.call(LIST, terminated)).body).toContainEqual(
        expect.objectContaining({ id: body.id }),
      );
    },
  ],
  [
    "R 488, R 506, R 1645, R 1666, E 127, E 133, D start, stop, restart",
    "stop and start are answered with what has begun, and with Prefer: wait with what has been reached",
    async ({ main, ada }) => {
      const one = of(ada, await main.environment(ada, { name: "verbs" }));
      const begun = await main.call(verb("stop"), {
        ...one,
        status: 200,
        answer: { message: "Environment stop initiated", status: "stopping" },
      });
      expect(Object.keys(begun.body).toSorted()).toEqual(["message", "status"]);
      await main.call(verb("stop"), { ...one, status: 400, answer: refusedState("stop") });
      const wait = { ...one, headers: WAIT, status: 200 };
      const started = { message: "Environment started successfully", status: "running" };
      await settle(main, one);
      const { headers } = await main.call(verb("start"), { ...wait, answer: started });
      expect(headers.get("preference-applied")).toBe("wait=30");
      const stopped = { message: "Environment stopped successfully", status: "stopped" };
      await main.call(verb("stop"), { ...wait, answer: stopped });
      const initiated = { message: "Environment start initiated", status: "creating" };
      await main.call(verb("start"), { ...one, status: 200, answer: initiated });
      await remove(main, ada, one.params.environment_id);
    },
  ],
  [
    "R 496, R 514, R 2247",
    "start needs stopped, stop running, recover error: else 400 with the code invalid_state",
    async ({ main, ada, adas }) => {
      for (const name of ["start", "recover"]) {
        await main.call(verb(name), { ...of(ada, adas), status: 400, answer: refusedState(name) });
      }
      const id = await main.environment(ada, { name: "stopped" });
      await main.call(verb("stop"), { ...of(ada, id), headers: WAIT, status: 200 });
      for (const name of ["stop", "recover"]) {
        await main.call(verb(name), { ...of(ada, id), status: 400, answer: refusedState(name) });
      }
      await main.call(GET, {
        ...of(ada, id),
        status: 200,
        answer: { status: "stopped", cpu_usage: 0, memory_usage: 0 },
      });
      await main.call(verb("restart"), {
        ...of(ada, id),
        headers: WAIT,
        status: 200,
        answer: { message: "Environment restarted successfully", status: "running" },
      });
      await remove(main, ada, id);
    },
  ],
  [
    "R 524, R 1687, R 1696, E 139",
    "restart begins restarting and is allowed from running, stopped and error; from creating it is 400",
    async (world) => {
      const { main, ada, adas } = world;
      await main.call(verb("restart"), {
        ...of(ada, adas),
        status: 200,
        answer: { message: "Environment restart initiated", status: "restarting" },
      });
      await settle(main, of(ada, adas));
      const id = await failed(world, ada);
      await main.call(verb("restart"), {
        ...of(ada, id),
        headers: WAIT,
        status: 200,
        answer: { message: "Environment restart failed", status: "error" },
      });
      await remove(main, ada, id);
    },
  ],
  [
    "R 532, R 540, D recover, asynchronous verbs",
    "recover begins again from error, and says so when it fails again",
    async (world) => {
      const { main, ada } = world;
      const id = await failed(world, ada);
      const initiated = { message: "Environment recovery initiated", status: "creating" };
      await main.call(verb("recover"), { ...of(ada, id), status: 200, answer: initiated });
      await settle(main, of(ada, id));
      await main.call(verb("recover"), {
        ...of(ada, id),
        headers: WAIT,
        status: 200,
        answer: { message: "Environment recovery failed", status: "error" },
      });
      await remove(main, ada, id);
    },
  ],
  [
    "R 362, D deadlines",
    "a failed command ends in error, and the reason names its text and exit code",
    async ({ main, failing }) => {
      const { person, created } = await failing;
      await main.call(GET, {
        ...of(person, created.body.id),
        status: 200,
        answer: { status: "error", status_message: expect.stringMatching(/exit code 3.*: exit 3/) },
      });
    },
  ],
  [
    "R 548, R 556, E 145, D metrics",
    "metrics are in percent of the limits, bytes and seconds; what can't be known is null",
    async ({ main, ada, adas }) => {
      // How busy it is is known when it has been looked at twice.
      await until(
        async () => (await main.call(METRICS, { ...of(ada, adas), status: 200 })).body.cpu_usage !== null,
      );
      await main.call(METRICS, {
        ...of(ada, adas),
        status: 200,
        answer: {
          environment_id: adas,
          cpu_usage: anyNumber,
          memory_usage: anyNumber,
          storage_usage: anyNumber,
          network_rx: null,
          network_tx: null,
          uptime: anyNumber,
          last_updated: anyTime,
        },
      });
    },
  ],
  [
    "D metrics, object",
    "of a stopped environment cpu and memory are 0 and it has no uptime",
    async ({ main, ada }) => {
      const id = await main.environment(ada, { name: "idle" });
      await main.call(verb("stop"), { ...of(ada, id), headers: WAIT, status: 200 });
      const answer = { cpu_usage: 0, memory_usage: 0, uptime: 0 };
      await main.call(METRICS, { ...of(ada, id), status: 200, answer });
      await remove(main, ada, id);
    },
  ],
  [
    "R 570, R 582, R 2158, E 150, E 382, D logs",
    "logs are the last lines, oldest first, with how many there are and whether there are more",
    async ({ main, ada, adas }) => {
      const { body } = await main.call(LOGS, { ...of(ada, adas), query: { lines: "1000" }, status: 200 });
      expect(body.total_lines).toBe(body.logs.length);
      expect(body.has_more).toBe(false);
      const times = body.logs.map(({ offset }: { offset: number }) => offset);
      expect(times).toEqual(times.toSorted((a: number, b: number) => a - b));
      const last = await main.call(LOGS, {
        ...of(ada, adas),
        query: { lines: "1" },
        status: 200,
        answer: {
          environment_id: adas,
          environment_name: "adas",
          logs: [
            {
              timestamp: anyTime,
              level: expect.stringMatching(/^(DEBUG|INFO|WARN|ERROR)$/),
              message: anyText,
              source: expect.stringMatching(/^(container|application|system)$/),
              offset: anyNumber,
            },
          ],
          total_lines: body.total_lines,
          has_more: true,
        },
      });
      expect(last.body.logs).toEqual([body.logs.at(-1)]);
    },
  ],
  [
    "R 579, R 580, E 153, E 154",
    "lines is 1 to 1000 and since an ISO time: else 422; since chooses what is not older",
    async ({ main, ada, adas }) => {
      for (const query of [{ lines: "0" }, { lines: "1001" }, { lines: "ten" }, { since: "yesterday" }]) {
        await main.call(LOGS, { ...of(ada, adas), query, status: 422 });
      }
      const all = (await main.call(LOGS, { ...of(ada, adas), query: { lines: "1000" }, status: 200 })).body;
      const since = async (time: string) =>
        (await main.call(LOGS, { ...of(ada, adas), query: { since: time }, status: 200 })).body;
      expect((await since("2024-01-01T12:00:00Z")).total_lines).toBe(all.total_lines);
      expect((await since(all.logs.at(-1).timestamp)).logs).toContainEqual(all.logs.at(-1));
      expect((await since("2999-01-01T00:00:00Z")).logs).toEqual([]);
      const query = { since_offset: String(all.logs[0].offset) };
      const rest = (await main.call(LOGS, { ...of(ada, adas), query, status: 200 })).body;
      expect(rest.logs[0]).toEqual(all.logs[1]);
    },
  ],
  [
    "R 1711, D logs",
    "follow streams the same entries as server-sent events, after Last-Event-ID where it is given",
    async ({ main, ada, adas }) => {
      const { body } = await main.call(LOGS, { ...of(ada, adas), status: 200 });
      const [first, second] = body.logs;
      const events = async (headers: Record<string, string>) => {
        const call = { ...of(ada, adas), query: { follow: "true" }, headers };
        const response = await main.send(main.document.operation(LOGS), call);
        expect(response.headers.get("content-type")).toBe("text/event-stream");
        main.coverage.parameters.add(`${LOGS} follow`);
        let text = "";
        for await (const chunk of response.body ?? []) {
          text += new TextDecoder().decode(chunk);
          const event = /event: log\nid: (\d+)\ndata: (.*)\n\n/.exec(text);
          if (event) return { id: Number(event[1]), entry: JSON.parse(event[2] ?? "") };
        }
        throw new Error(`no event came: ${text}`);
      };
      expect(await events({})).toEqual({ id: first.offset, entry: first });
      main.coverage.parameters.add(`${LOGS} last-event-id`);
      expect(await events({ "Last-Event-ID": String(first.offset) })).toEqual({
        id: second.offset,
        entry: second,
      });
    },
  ],
  [
    "D logs",
    "a stream ends with its environment",
    async ({ main, ada }) => {
      const id = await main.environment(ada, { name: "followed" });
      const call = { ...of(ada, id), query: { follow: "true" } };
      const response = await main.send(main.document.operation(LOGS), call);
      const text = response.text();
      await remove(main, ada, id);
      expect(await text).toContain("event: log");
    },
  ],
  [
    "D installation",
    "every start is an installation, and has at least one line of the system",
    async ({ main, ada, adas }) => {
      const { body } = await main.call(LOGS, { ...of(ada, adas), query: { lines: "1000" }, status: 200 });
      expect(body.logs.map(({ source }: { source: string }) => source)).toContain("system");
    },
  ],
];

/** Waits, through a request that does nothing else, until it has settled. */
async function settle(site: Site, one: { as: Person; params: { environment_id: string } }): Promise<void> {
  for (;;) {
    const { body } = await site.call(GET, { ...one, status: 200 });
    if (["running", "stopped", "error", "terminated"].includes(body.status)) return;
    await Bun.sleep(10);
  }
}
