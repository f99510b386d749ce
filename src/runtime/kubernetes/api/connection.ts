import { KubeConfig } from "@kubernetes/client-node";

export interface TlsOptions {
  ca?: string | Buffer;
  cert?: string | Buffer;
  key?: string | Buffer;
  passphrase?: string;
  rejectUnauthorized?: boolean;
  serverName?: string;
}

/** What a request carries so that the API server knows whom it comes from. */
export interface Credentials {
  headers: Record<string, string>;
  tls: TlsOptions;
}

export interface Connection {
  /** The API server's address without a trailing slash. */
  server: string;
  /** Credentials as they are now: tokens from files and plug-ins change. */
  credentials(): Promise<Credentials>;
}

/** Long enough to spare every request the decoding, short against the life of a service account's token. */
const CREDENTIALS_FRESH_MS = 30_000;

const SERVICE_ACCOUNT_FOLDER = "/var/run/secrets/kubernetes.io/serviceaccount";

/**
 * The connection that a kubeconfig's current context describes. Bun's fetch and WebSocket take what is in
 * it as `headers` and `tls`; the client library's own transport ignores the cluster's CA on Bun.
 *
 * @throws TypeError when the current context names no cluster
 */
export function connectionOf(kubeConfig: KubeConfig, now: () => number = Date.now): Connection {
  const cluster = kubeConfig.getCurrentCluster();
  if (!cluster) throw new TypeError("the kubeconfig's current context names no cluster");
  let known: { until: number; credentials: Promise<Credentials> } | undefined;
  return {
    server: cluster.server.replace(/\/+$/, ""),
    credentials() {
      if (known && known.until > now()) return known.credentials;
      const credentials = readCredentials(kubeConfig);
      known = { until: now() + CREDENTIALS_FRESH_MS, credentials };
      credentials.catch(() => {
        known = undefined;
      });
      return credentials;
    },
  };
}

async function readCredentials(kubeConfig: KubeConfig): Promise<Credentials> {
  const options: Parameters<KubeConfig["applyToHTTPSOptions"]>[0] & { servername?: string } = {};
  await kubeConfig.applyToHTTPSOptions(options);
  const tls: TlsOptions = {};
  const { ca, cert, key, passphrase, rejectUnauthorized, servername, auth } = options;
  if (isPem(ca)) tls.ca = ca;
  if (isPem(cert)) tls.cert = cert;
  if (isPem(key)) tls.key = key;
  if (passphrase) tls.passphrase = passphrase;
  if (rejectUnauthorized === false) tls.rejectUnauthorized = false;
  if (servername) tls.serverName = servername;
  const headers: Record<string, string> = {};
  for (const [name, value] of Object.entries(options.headers ?? {})) {
    if (typeof value === "string") headers[name] = value;
  }
  if (auth) headers.Authorization = `Basic ${Buffer.from(auth).toString("base64")}`;
  return { headers, tls };
}

function isPem(value: unknown): value is string | Buffer {
  return typeof value === "string" || value instanceof Buffer;
}

/**
 * The kubeconfig of a server that runs in a pod: its service account. The token's file is read again as it
 * changes.
 */
export function inClusterKubeConfig({
  server = "https://kubernetes.default.svc",
  folder = SERVICE_ACCOUNT_FOLDER,
}: {
  server?: string;
  folder?: string;
} = {}): KubeConfig {
  const kubeConfig = new KubeConfig();
  kubeConfig.loadFromClusterAndUser(
    { name: "in-cluster", server, caFile: `${folder}/ca.crt`, skipTLSVerify: false },
    {
      name: "service-account",
      authProvider: { name: "tokenFile", config: { tokenFile: `${folder}/token` } },
    },
  );
  return kubeConfig;
}
