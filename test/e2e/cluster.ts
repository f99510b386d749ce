import { rmSync } from "node:fs";
import { type ServerOptions, type TestClient, TestServer, temporaryFolder } from "../harness.ts";
import { kubectl } from "../runtime/kubernetes/kubectl.ts";
import { until } from "../until.ts";

/* A real server process with the cluster that KUBECONFIG names, and what is said of both from outside. */

export const KUBECONFIG = process.env.KUBECONFIG ?? "";

/** A server whose environments run on the cluster, which may end and be started again. */
export class ClusterServer {
  #server: TestServer;
  readonly #options: ServerOptions & { dataDir: string };
  readonly userId: string;
  client: TestClient;

  private constructor(
    server: TestServer,
    client: TestClient,
    more: { options: ServerOptions & { dataDir: string }; userId: string },
  ) {
    this.#server = server;
    this.client = client;
    this.#options = more.options;
    this.userId = more.userId;
  }

  /** Its administrator is signed in; its cluster is named `default` and has been measured. */
  static async start({ environment = {}, ...more }: ServerOptions = {}): Promise<ClusterServer> {
    const options = {
      dataDir: temporaryFolder(),
      ...more,
      environment: {
        LOCAL_RUNTIME: "off",
        CLUSTER_KUBECONFIG_FILE: KUBECONFIG,
        WS_CONNECTIONS_PER_USER: "1000",
        ...environment,
      },
    };
    const server = await TestServer.start(options);
    const client = await server.signedIn();
    const { id } = await client.get("/api/v1/users/me");
    return new ClusterServer(server, client, { options, userId: String(id) });
  }

  get process(): TestServer {
    return this.#server;
  }

  kill(): Promise<void> {
    return this.#server.kill();
  }

  /** Starts it again with the data it has, after `kill` or `end`. */
  async again(): Promise<TestClient> {
    this.#server = await TestServer.start(this.#options);
    this.client = await this.#server.signedIn();
    return this.client;
  }

  end(): Promise<number> {
    return this.#server.stop();
  }

  /** Deletes what there is, waits until nothing is left in the cluster, and ends. */
  async close(): Promise<void> {
    const left = await this.client.list("/api/v1/environments?limit=200");
    await Promise.all(left.map(({ id }) => this.client.delete(`/api/v1/environments/${id}`)));
    await this.leavesNothing();
    await this.end();
    rmSync(this.#options.dataDir, { recursive: true, force: true });
  }

  async leavesNothing(timeoutMs = 270_000): Promise<void> {
    let left: string[] = [];
    const nothing = async () => {
      left = await objectsOf(this.userId);
      return left.length === 0;
    };
    await until(nothing, {
      timeoutMs,
      intervalMs: 500,
      message: () => `left in the cluster: ${left.join(", ")}`,
    });
  }
}

const KINDS = "all,pvc,cm,secret,netpol,quota,limits,sa";

/** Everything of a user in the cluster, the namespace and the volumes too. */
export async function objectsOf(userId: string): Promise<string[]> {
  const label = `devpocket.dev/user-id=${userId}`;
  const [namespaces, objects, volumes] = await Promise.all([
    kubectl(["get", "namespaces", "-l", label, "-o", "name"]),
    kubectl(["get", KINDS, "-A", "-l", label, "-o", "name"]),
    kubectl([
      "get",
      "pv",
      "-o",
      'jsonpath={range .items[*]}{.metadata.name} {.spec.claimRef.namespace}{"\\n"}{end}',
    ]),
  ]);
  const ofUser = volumes.split("\n").filter((line) => line.includes(userId));
  return [...namespaces.split("\n"), ...objects.split("\n"), ...ofUser].filter((line) => line !== "");
}

/** How many of a kind there are of an environment, those that are being deleted not counted. */
export async function countOf(kind: string, environmentId: string): Promise<number> {
  const label = `devpocket.dev/environment-id=${environmentId}`;
  const list: { items: { metadata: { deletionTimestamp?: string } }[] } = JSON.parse(
    await kubectl(["get", kind, "-A", "-l", label, "-o", "json"]),
  );
  return list.items.filter(({ metadata }) => !metadata.deletionTimestamp).length;
}

/** A template that runs in the cluster's Debian image, and takes little of it. */
export function template(name: string, commands: string[], change: Record<string, unknown> = {}) {
  return {
    name,
    display_name: name,
    description: "For a test",
    category: "operating_system",
    docker_image: "debian:12",
    default_port: 8080,
    default_resources: { cpu: "200m", memory: "64Mi", storage: "64Mi" },
    startup_commands: commands,
    ...change,
  };
}

export interface Seen {
  id: string;
  name: string;
  status: string;
  message: string | null;
  progress: number;
}

export async function seen(client: TestClient, id: string): Promise<Seen> {
  return asSeen(await client.get(`/api/v1/environments/${id}`));
}

export function asSeen({ id, name, status, status_message, progress }: Record<string, unknown>): Seen {
  return {
    id: String(id),
    name: String(name),
    status: String(status),
    message: status_message === null ? null : String(status_message),
    progress: Number(progress),
  };
}

/** Waits until an environment is `status`, and gives everything different that was seen of it until then. */
export async function reaches(
  client: TestClient,
  id: string,
  status: string,
  timeoutMs = 60_000,
  onChange: (now: Seen) => Promise<unknown> = async () => {},
): Promise<Seen[]> {
  const history: Seen[] = [];
  const reached = async () => {
    const now = await seen(client, id);
    if (JSON.stringify(now) !== JSON.stringify(history.at(-1))) {
      history.push(now);
      await onChange(now);
    }
    return now.status === status;
  };
  await until(reached, {
    timeoutMs,
    intervalMs: 50,
    message: () => `${id} did not become ${status}: ${JSON.stringify(history.slice(-8))}`,
  });
  return history;
}

/** Makes an empty file in a container. */
export async function touch(environmentId: string, file: string): Promise<void> {
  const label = `devpocket.dev/environment-id=${environmentId}`;
  const names = "jsonpath={.items[0].metadata.namespace} {.items[0].metadata.name}";
  const [namespace = "", pod = ""] = (await kubectl(["get", "pods", "-A", "-l", label, "-o", names])).split(
    " ",
  );
  await kubectl(["exec", "-n", namespace, pod, "--", "touch", file]);
}

/** Messages of an environment's log, by source. */
export async function logOf(client: TestClient, id: string, source?: string): Promise<string[]> {
  const { logs } = await client.get(`/api/v1/environments/${id}/logs?lines=1000`);
  const entries = logs as { message: string; source: string }[];
  return entries.filter((entry) => !source || entry.source === source).map(({ message }) => message);
}

/** Waits until a line of an environment's own events is in its log. */
export async function logs(client: TestClient, id: string, line: RegExp): Promise<void> {
  let lines: string[] = [];
  const found = async () => {
    lines = await logOf(client, id, "system");
    return lines.some((message) => line.test(message));
  };
  const message = () => `no ${line} in the log:\n${lines.join("\n")}`;
  await until(found, { timeoutMs: 15_000, intervalMs: 200, message });
}

/** What a command prints in a terminal of the environment: that is what a person would see. */
export async function inTerminal(client: TestClient, id: string, command: string): Promise<string> {
  const terminal = await client.terminal(id);
  await terminal.message("welcome", ({ session_id }) => typeof session_id === "string");
  // In two parts, so that the echo of the typing is not taken for the answer.
  terminal.type(`stty -echo; printf '%s%s\\n' 'beg' 'in'; ${command}; printf '%s%s\\n' 'en' 'd'; exit\r`);
  await terminal.prints(/begin\r\n[\s\S]*end\r\n/);
  await terminal.closes();
  return (/begin\r\n([\s\S]*)end\r\n/.exec(terminal.text)?.[1] ?? "").replaceAll("\r\n", "\n");
}
