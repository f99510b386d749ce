import { readFileSync } from "node:fs";
import * as v from "valibot";
import {
  duration,
  durationOrOff,
  email,
  keys,
  list,
  mailServer,
  onOff,
  origins,
  path,
  port,
  sender,
  text,
  url,
  whole,
} from "./values.ts";

/** A configuration that can't be used. The message is one line: variable, fault, example. */
export class ConfigError extends Error {
  override readonly name = "ConfigError";
}

interface Variable<T> {
  help: string;
  /** A value that would be right, shown with every complaint and in `--help`. */
  example: string;
  /** What counts when the variable is not set; without it the variable is optional. */
  fallback?: string;
  /** May also be given as `NAME_FILE`, the path of a file that holds the value; never printed. */
  secret?: true;
  schema: v.GenericSchema<string, T>;
}

type WithFallback<T> = Variable<T> & { fallback: string };

function variable<T>(definition: WithFallback<T>): WithFallback<T>;
function variable<T>(definition: Variable<T>): Variable<T>;
function variable<T>(definition: Variable<T>): Variable<T> {
  return definition;
}

const VARIABLES = {
  HOST: variable({
    help: "address to listen on; a shell on this machine is not for the whole network unless you say so",
    example: "0.0.0.0",
    fallback: "127.0.0.1",
    schema: text,
  }),
  PORT: variable({ help: "port to listen on", example: "8000", fallback: "8000", schema: port }),
  DATA_DIR: variable({
    help: "folder of the database, the keys and the local runtime's workspaces",
    example: "/var/lib/devpocket",
    fallback: "./data",
    schema: path,
  }),
  PUBLIC_URL: variable({
    help: "how clients reach the server; https here redirects HTTP to HTTPS",
    example: "https://devpocket.example.org",
    schema: v.pipe(
      url(["http:", "https:"]),
      v.check(({ href }) => !/[?#]/.test(href), "may have neither query nor fragment"),
    ),
  }),
  ENVIRONMENT: variable({
    help: "name of this installation, shown by /health",
    example: "staging",
    fallback: "production",
    schema: text,
  }),
  REGISTRATION: variable({
    help: "whether anyone may register: open or closed",
    example: "closed",
    fallback: "open",
    schema: v.picklist(["open", "closed"], "must be open or closed"),
  }),
  ADMIN_EMAIL: variable({
    help: "address of the first administrator, made when there is none",
    example: "you@example.org",
    fallback: "admin@localhost.localdomain",
    schema: email,
  }),
  ADMIN_PASSWORD: variable({
    help: "password of the first administrator; made and shown once when absent",
    example: "a long sentence",
    secret: true,
    schema: v.pipe(
      v.string(),
      v.minLength(8, "is shorter than 8 characters"),
      v.maxLength(128, "is too long"),
    ),
  }),
  LOG_FORMAT: variable({
    help: "text or json",
    example: "json",
    fallback: "text",
    schema: v.picklist(["text", "json"], "must be text or json"),
  }),
  LOG_LEVEL: variable({
    help: "debug, info, warn or error",
    example: "debug",
    fallback: "info",
    schema: v.picklist(["debug", "info", "warn", "error"], "must be debug, info, warn or error"),
  }),
  JWT_SECRET: variable({
    help: "signs tokens, at least 32 characters; made in DATA_DIR when absent",
    example: "$(openssl rand -base64 32)",
    secret: true,
    schema: v.pipe(v.string(), v.minLength(32, "is shorter than 32 characters")),
  }),
  ENCRYPTION_KEY: variable({
    help: "32-byte keys in base64 or hex, separated by commas: the first encrypts kubeconfigs, all decrypt; made in DATA_DIR when absent",
    example: "$(openssl rand -base64 32)",
    secret: true,
    schema: keys,
  }),
  LOCAL_RUNTIME: variable({
    help: "environments as processes of this machine: on or off",
    example: "off",
    fallback: "on",
    schema: onOff,
  }),
  CLUSTER_KUBECONFIG_FILE: variable({
    help: "kubeconfig of a cluster to register at start",
    example: "/etc/devpocket/kubeconfig",
    schema: path,
  }),
  CORS_ORIGINS: variable({
    help: "origins of web applications that may call the API, separated by commas",
    example: "https://app.example.org",
    fallback: "",
    schema: origins,
  }),
  TRUSTED_PROXIES: variable({
    help: "how many reverse proxies stand before the server: that many entries of X-Forwarded-For are believed",
    example: "1",
    fallback: "0",
    schema: whole(0, 10),
  }),
  TLS_CERT_FILE: variable({
    help: "certificate chain (PEM) to serve HTTPS directly",
    example: "/etc/devpocket/tls.crt",
    schema: path,
  }),
  TLS_KEY_FILE: variable({
    help: "its private key (PEM)",
    example: "/etc/devpocket/tls.key",
    schema: path,
  }),
  RATE_LIMIT_PER_MINUTE: variable({
    help: "requests per user (per IP when signed out); 0 switches the limit off",
    example: "100",
    fallback: "100",
    schema: whole(0, 1_000_000),
  }),
  AUTH_RATE_LIMIT_PER_MINUTE: variable({
    help: "requests per IP to the credential endpoints; 0 switches the limit off",
    example: "5",
    fallback: "5",
    schema: whole(0, 1_000_000),
  }),
  WS_CONNECTIONS_PER_USER: variable({
    help: "WebSockets open at a time per user",
    example: "10",
    fallback: "10",
    schema: whole(1, 100_000),
  }),
  WS_MESSAGES_PER_MINUTE: variable({
    help: "messages per WebSocket; 0 switches the limit off",
    example: "100",
    fallback: "100",
    schema: whole(0, 1_000_000),
  }),
  SMTP_URL: variable({
    help: "mail server; without it links are written to the log",
    example: "smtps://user:password@mail.example.org",
    secret: true,
    schema: mailServer,
  }),
  MAIL_FROM: variable({
    help: "sender of mail",
    example: "DevPocket <devpocket@example.org>",
    fallback: "DevPocket <devpocket@localhost>",
    schema: sender,
  }),
  GOOGLE_CLIENT_IDS: variable({
    help: "OAuth client ids whose Google ID tokens are accepted, separated by commas; the first serves the browser flow",
    example: "123-abc.apps.googleusercontent.com",
    fallback: "",
    schema: list,
  }),
  GOOGLE_CLIENT_SECRET: variable({
    help: "secret of the first client id, for the browser flow",
    example: "GOCSPX-…",
    secret: true,
    schema: text,
  }),
  METRICS_PORT: variable({
    help: "port of its own for Prometheus metrics at /metrics",
    example: "9090",
    schema: port,
  }),
  METRICS_TOKEN: variable({
    help: "bearer token for /metrics; with it and without METRICS_PORT they are on the server's port, without both there are none",
    example: "$(openssl rand -hex 16)",
    secret: true,
    schema: v.pipe(v.string(), v.regex(/^\S{16,}$/, "must be at least 16 characters without spaces")),
  }),
  AUDIT_RETENTION: variable({
    help: "how long audit rows are kept, or off: for ever",
    example: "90d",
    fallback: "365d",
    schema: durationOrOff,
  }),
  PROVISIONING_TIMEOUT: variable({
    help: "how long volumes, scheduling and image pull may take",
    example: "10m",
    fallback: "10m",
    schema: duration,
  }),
  IMAGE_PULL_TIMEOUT: variable({
    help: "how long an image may fail to be pulled",
    example: "60s",
    fallback: "60s",
    schema: duration,
  }),
  UNSCHEDULABLE_TIMEOUT: variable({
    help: "how long a pod may wait for a node",
    example: "2m",
    fallback: "2m",
    schema: duration,
  }),
  INSTALLING_TIMEOUT: variable({
    help: "how long startup commands may run",
    example: "20m",
    fallback: "20m",
    schema: duration,
  }),
  STOPPING_TIMEOUT: variable({
    help: "how long stopping may take",
    example: "2m",
    fallback: "2m",
    schema: duration,
  }),
  IDLE_STOP_FREE: variable({
    help: "after how long without activity a free user's running environment is stopped, or off",
    example: "off",
    fallback: "2h",
    schema: durationOrOff,
  }),
  IDLE_STOP_STARTER: variable({
    help: "the same on the starter plan",
    example: "off",
    fallback: "8h",
    schema: durationOrOff,
  }),
  IDLE_STOP_PRO: variable({
    help: "the same on the pro plan",
    example: "off",
    fallback: "24h",
    schema: durationOrOff,
  }),
  DELETE_STOPPED_AFTER: variable({
    help: "how long a stopped environment is kept before it is deleted, never without a day's notice in its log and by mail, or off",
    example: "90d",
    fallback: "30d",
    schema: durationOrOff,
  }),
} as const;

type Name = keyof typeof VARIABLES;
type Values = {
  [N in Name]: (typeof VARIABLES)[N] extends { schema: v.GenericSchema<string, infer T> }
    ? (typeof VARIABLES)[N] extends { fallback: string }
      ? T
      : T | undefined
    : never;
};

export type Config = ReturnType<typeof loadConfig>;

/**
 * Reads the configuration from environment variables; the only place that does.
 *
 * @throws ConfigError for the first value that is wrong
 */
export function loadConfig(environment: Record<string, string | undefined> = process.env) {
  const read = readAll(environment);
  if ((read.TLS_CERT_FILE === undefined) !== (read.TLS_KEY_FILE === undefined)) {
    const missing = read.TLS_CERT_FILE === undefined ? "TLS_CERT_FILE" : "TLS_KEY_FILE";
    throw complaint(missing, "is missing: a certificate and its key go together");
  }
  if (read.SMTP_URL && !read.PUBLIC_URL) {
    throw complaint("PUBLIC_URL", "is missing: messages link to it, so SMTP_URL needs it");
  }
  return {
    host: read.HOST,
    port: read.PORT,
    dataDir: read.DATA_DIR,
    publicUrl: read.PUBLIC_URL,
    environment: read.ENVIRONMENT,
    registration: read.REGISTRATION,
    admin: { email: read.ADMIN_EMAIL, password: read.ADMIN_PASSWORD },
    log: { format: read.LOG_FORMAT, level: read.LOG_LEVEL },
    jwtSecret: read.JWT_SECRET,
    encryptionKeys: read.ENCRYPTION_KEY,
    localRuntime: read.LOCAL_RUNTIME,
    clusterKubeconfigFile: read.CLUSTER_KUBECONFIG_FILE,
    corsOrigins: read.CORS_ORIGINS,
    trustedProxies: read.TRUSTED_PROXIES,
    tls:
      read.TLS_CERT_FILE && read.TLS_KEY_FILE
        ? { certFile: read.TLS_CERT_FILE, keyFile: read.TLS_KEY_FILE }
        : undefined,
    rateLimits: {
      generalPerMinute: read.RATE_LIMIT_PER_MINUTE,
      authPerMinute: read.AUTH_RATE_LIMIT_PER_MINUTE,
    },
    sockets: {
      connectionsPerUser: read.WS_CONNECTIONS_PER_USER,
      messagesPerMinute: read.WS_MESSAGES_PER_MINUTE,
    },
    mail: { smtpUrl: read.SMTP_URL, from: read.MAIL_FROM },
    google: { clientIds: read.GOOGLE_CLIENT_IDS, clientSecret: read.GOOGLE_CLIENT_SECRET },
    metrics: { port: read.METRICS_PORT, token: read.METRICS_TOKEN },
    auditRetentionMs: read.AUDIT_RETENTION,
    deadlines: {
      provisioningMs: read.PROVISIONING_TIMEOUT,
      imagePullMs: read.IMAGE_PULL_TIMEOUT,
      unschedulableMs: read.UNSCHEDULABLE_TIMEOUT,
      installingMs: read.INSTALLING_TIMEOUT,
      stoppingMs: read.STOPPING_TIMEOUT,
    },
    idleStopMs: { free: read.IDLE_STOP_FREE, starter: read.IDLE_STOP_STARTER, pro: read.IDLE_STOP_PRO },
    deleteStoppedAfterMs: read.DELETE_STOPPED_AFTER,
  };
}

/** What can be used as it is, and is hardly what was meant. */
export function configWarnings({ publicUrl, tls, trustedProxies }: Config): string[] {
  const isRedirectedForEver = publicUrl?.protocol === "https:" && !tls && trustedProxies === 0;
  return isRedirectedForEver
    ? [
        "PUBLIC_URL is https, but there is no TLS_CERT_FILE and TRUSTED_PROXIES is 0: nothing says that a request came over HTTPS, so all are redirected there. Behind a proxy set TRUSTED_PROXIES=1",
      ]
    : [];
}

/** What `--help` prints of the configuration. */
export function configHelp(): string {
  return Object.entries(VARIABLES)
    .map(([name, definition]: [string, Variable<unknown>]) => {
      const notes = [
        definition.fallback ? `default ${definition.fallback}` : `e.g. ${definition.example}`,
        ...(definition.secret ? [`or ${name}_FILE`] : []),
      ];
      return `  ${name}\n      ${definition.help} (${notes.join("; ")})`;
    })
    .join("\n");
}

function complaint(name: Name, fault: string): ConfigError {
  return new ConfigError(`${name} ${fault}. Example: ${name}=${VARIABLES[name].example}`);
}

function readAll(environment: Record<string, string | undefined>): Values {
  const values: Partial<Record<Name, unknown>> = {};
  for (const name of Object.keys(VARIABLES).filter((key): key is Name => key in VARIABLES)) {
    values[name] = readOne(name, VARIABLES[name], environment);
  }
  return values as Values;
}

function readOne(
  name: Name,
  definition: Variable<unknown>,
  environment: Record<string, string | undefined>,
): unknown {
  let raw = environment[name] || definition.fallback;
  const file = definition.secret ? environment[`${name}_FILE`] : undefined;
  if (file) {
    if (environment[name]) throw complaint(name, `and ${name}_FILE are both set`);
    try {
      raw = readFileSync(file, "utf8").trim();
    } catch {
      throw complaint(name, `can't be read from ${name}_FILE`);
    }
  }
  if (raw === undefined) return undefined;
  const result = v.safeParse(definition.schema, raw, { abortEarly: true });
  if (result.success) return result.output;
  const shown = definition.secret ? "" : `=${JSON.stringify(raw)}`;
  throw new ConfigError(
    `${name}${shown} ${result.issues[0].message}. Example: ${name}=${definition.example}`,
  );
}
