import { createPrivateKey, X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { KubeConfig } from "@kubernetes/client-node";
import * as v from "valibot";
import { AppError } from "../errors.ts";
import { inClusterKubeConfig } from "../runtime/kubernetes/api/connection.ts";

/** Stands for the service account of the pod that the server runs in, whose token changes. */
export const IN_CLUSTER = "in-cluster";

const MAX_CHARACTERS = 256 * 1024;

const text = v.optional(v.nullable(v.string()));

const ClusterEntry = v.object({
  server: v.string(),
  "certificate-authority": text,
  "certificate-authority-data": text,
  "insecure-skip-tls-verify": v.optional(v.nullable(v.boolean())),
  "tls-server-name": text,
  "proxy-url": text,
});

const UserEntry = v.object({
  "client-certificate": text,
  "client-certificate-data": text,
  "client-key": text,
  "client-key-data": text,
  token: text,
  tokenFile: text,
  username: text,
  password: text,
  as: text,
  "as-groups": v.optional(v.unknown()),
  "as-uid": v.optional(v.unknown()),
  exec: v.optional(v.unknown()),
  "auth-provider": v.optional(v.unknown()),
});

type ClusterEntry = v.InferOutput<typeof ClusterEntry>;
type UserEntry = v.InferOutput<typeof UserEntry>;

const list = <T extends v.GenericSchema>(entry: T) => v.optional(v.nullable(v.array(entry)));

/** Only what the current context names is looked at closely: see `entryOf`. */
const File = v.object({
  "current-context": text,
  contexts: list(
    v.object({ name: v.string(), context: v.object({ cluster: v.string(), user: v.string() }) }),
  ),
  clusters: list(v.object({ name: v.string(), cluster: v.unknown() })),
  users: list(v.object({ name: v.string(), user: v.unknown() })),
});

/**
 * Reduces a kubeconfig, YAML or JSON, plain or in base64, to what its current context uses. What would
 * run programs, read files of the server or weaken TLS is refused.
 *
 * @returns a kubeconfig with one context, as JSON
 * @throws AppError invalid, saying what is wrong with it
 */
export function reduceKubeconfig(given: string): string {
  return reduce(given, (_path, field) => {
    const instead = field === "tokenFile" ? "token" : `${field}-data`;
    throw refused(
      `names a file of the server in ${field}: give its content in ${instead} instead`,
      "file_path",
    );
  });
}

/**
 * The same for a file of the server's operator: it may name further files, beside itself or by their whole
 * path, whose content is taken over.
 *
 * @throws AppError invalid; Error for a file that can't be read
 */
export function readKubeconfigFile(file: string): string {
  return reduce(readFileSync(file, "utf8"), (path) => readFileSync(resolve(dirname(file), path)));
}

/** What `reduceKubeconfig` gave, as the client library's object. */
export function parseReduced(reduced: string): KubeConfig {
  if (reduced === IN_CLUSTER) return inClusterKubeConfig();
  const kubeConfig = new KubeConfig();
  kubeConfig.loadFromString(reduced);
  return kubeConfig;
}

type ReadFile = (path: string, field: string) => Buffer;

function reduce(given: string, readFile: ReadFile): string {
  const file = parse(given);
  const contexts = file.contexts ?? [];
  const wanted = file["current-context"] || (contexts.length === 1 ? contexts[0]?.name : undefined);
  if (!wanted) throw refused("has no current-context");
  const context = contexts.find(({ name }) => name === wanted)?.context;
  if (!context) throw refused(`has no context "${wanted}"`);
  const cluster = entryOf(ClusterEntry, "cluster", context.cluster, file.clusters, (entry) => entry.cluster);
  const user = entryOf(UserEntry, "user", context.user, file.users, (entry) => entry.user);
  return JSON.stringify({
    apiVersion: "v1",
    kind: "Config",
    "current-context": "devpocket",
    contexts: [{ name: "devpocket", context: { cluster: "devpocket", user: "devpocket" } }],
    clusters: [{ name: "devpocket", cluster: reduceCluster(cluster, readFile) }],
    users: [{ name: "devpocket", user: reduceUser(user, readFile) }],
  });
}

function parse(given: string): v.InferOutput<typeof File> {
  if (given.length > MAX_CHARACTERS) throw refused("is longer than 256 KiB");
  // Every kubeconfig has a colon, which base64 has not.
  const yaml = given.includes(":") ? given : Buffer.from(given, "base64").toString("utf8");
  let value: unknown;
  try {
    value = Bun.YAML.parse(yaml);
  } catch {
    throw refused("is neither YAML nor base64 of YAML");
  }
  const result = v.safeParse(File, value);
  if (!result.success) throw refused(`does not have the form of one${whereIn(result.issues[0])}`);
  return result.output;
}

function entryOf<T, E extends { name: string }>(
  schema: v.GenericSchema<unknown, T>,
  what: string,
  name: string,
  entries: E[] | null | undefined,
  inner: (entry: E) => unknown,
): T {
  const entry = entries?.find((candidate) => candidate.name === name);
  if (!entry) throw refused(`has no ${what} "${name}"`);
  const result = v.safeParse(schema, inner(entry));
  if (!result.success) throw refused(`has a ${what} "${name}" that is not one${whereIn(result.issues[0])}`);
  return result.output;
}

function whereIn(issue: v.BaseIssue<unknown>): string {
  const path = v.getDotPath(issue);
  return path ? ` (at ${path})` : "";
}

function reduceCluster(cluster: ClusterEntry, readFile: ReadFile): Record<string, string> {
  if (cluster["proxy-url"]) throw refused("names a proxy (proxy-url), which is not supported", "proxy_url");
  if (cluster["insecure-skip-tls-verify"]) {
    const instead = "give the cluster's certificate-authority-data instead";
    throw refused(`switches off the check of the API server's certificate: ${instead}`, "insecure_tls");
  }
  const server = URL.canParse(cluster.server) ? new URL(cluster.server) : undefined;
  if (server?.protocol !== "https:") throw refused("must name an https:// server", "invalid_server");
  if (server.username || server.password) {
    throw refused("must not have credentials in the server's address", "invalid_server");
  }
  return present({
    server: cluster.server,
    "certificate-authority-data": pem(cluster, "certificate-authority", readFile),
    "tls-server-name": cluster["tls-server-name"],
  });
}

function reduceUser(user: UserEntry, readFile: ReadFile): Record<string, string> {
  for (const plugin of ["exec", "auth-provider"] as const) {
    if (user[plugin] === undefined || user[plugin] === null) continue;
    const instead = "use a service account's token or a client certificate";
    throw refused(
      `uses an ${plugin} credential plug-in, which would run on the server: ${instead}`,
      "plugin",
    );
  }
  if (user.as || user["as-groups"] || user["as-uid"]) {
    throw refused("impersonates someone (as), which is not supported", "impersonation");
  }
  const token =
    user.token || (user.tokenFile && readFile(user.tokenFile, "tokenFile").toString("utf8").trim());
  const reduced = present({
    "client-certificate-data": pem(user, "client-certificate", readFile),
    "client-key-data": pem(user, "client-key", readFile),
    token,
    username: user.username,
    password: user.password,
  });
  if (reduced.token && !/^[\x21-\x7e]+$/.test(reduced.token)) {
    throw refused("has a token with characters that no token has", "invalid_token");
  }
  const certificate = reduced["client-certificate-data"];
  const key = reduced["client-key-data"];
  if (certificate && key && !belongTogether(certificate, key)) {
    throw refused("has a client-key that is not that of its client-certificate", "invalid_pem");
  }
  if (!(certificate && key) && !reduced.token && !(reduced.username && reduced.password)) {
    throw refused("has no credentials: a token, or a client certificate with its key", "no_credentials");
  }
  return reduced;
}

type PemField = "certificate-authority" | "client-certificate" | "client-key";

/** As in kubectl the data win over the file. */
function pem(
  entry: { [F in PemField | `${PemField}-data`]?: string | null | undefined },
  field: PemField,
  readFile: ReadFile,
): string | undefined {
  const data = entry[`${field}-data`];
  const file = entry[field];
  if (!data && !file) return undefined;
  const bytes = data ? Buffer.from(data, "base64") : file ? readFile(file, field) : Buffer.alloc(0);
  const fault = pemFault(field, bytes);
  if (fault) throw refused(`has a ${field}${data ? "-data" : ""} that ${fault}`, "invalid_pem");
  return bytes.toString("base64");
}

/** Of what can't be used a connection would say no more than that it was cut. */
function pemFault(field: PemField, bytes: Buffer): string | undefined {
  if (!bytes.includes("-----BEGIN ")) return "does not hold PEM";
  const isKey = field === "client-key";
  try {
    if (isKey) createPrivateKey(bytes);
    else new X509Certificate(bytes);
    return undefined;
  } catch {
    return `does not hold a ${isKey ? "private key without a passphrase" : "certificate"}`;
  }
}

function belongTogether(certificate: string, key: string): boolean {
  const privateKey = createPrivateKey(Buffer.from(key, "base64"));
  return new X509Certificate(Buffer.from(certificate, "base64")).checkPrivateKey(privateKey);
}

function present(fields: Record<string, string | null | undefined>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(fields).filter((field): field is [string, string] => Boolean(field[1])),
  );
}

function refused(fault: string, code = "invalid_kubeconfig"): AppError {
  const message = `The kubeconfig ${fault}`;
  return new AppError("invalid", message, { fields: [{ field: "kubeconfig", message, code }] });
}
