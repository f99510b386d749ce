import type { Config } from "./config/config.ts";

/** Of a server that nothing was configured for. */
export const DEFAULT_URL = "http://127.0.0.1:8000";

/** In the place of an address: all of this machine's. */
const WILDCARDS: Record<string, string> = { "0.0.0.0": "127.0.0.1", "::": "[::1]" };

/** Where the server is reached from its own machine, without a slash at the end. */
export function localUrl({ host, port, tls }: Pick<Config, "host" | "port" | "tls">): string {
  const name = WILDCARDS[host] ?? (host.includes(":") ? `[${host}]` : host);
  return `${tls ? "https" : "http"}://${name}:${port}`;
}
