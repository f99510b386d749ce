import { type Config, ConfigError } from "./config/config.ts";

/** Of a server that nothing was configured for. */
export const DEFAULT_URL = "http://127.0.0.1:8000";

/** In the place of an address: all of this machine's. */
const WILDCARDS: Record<string, string> = { "0.0.0.0": "127.0.0.1", "::": "[::1]" };

/** Where the server is reached from its own machine, without a slash at the end. */
export function localUrl({ host, port, tls }: Pick<Config, "host" | "port" | "tls">): string {
  const name = WILDCARDS[host] ?? (host.includes(":") ? `[${host}]` : host);
  return `${tls ? "https" : "http"}://${name}:${port}`;
}

/**
 * Where a person says that a server is: `http://` goes before what names no scheme. A path stays, for a
 * server that is reached under one; without a slash at the end.
 *
 * @throws ConfigError for what is no address of HTTP
 */
export function serverUrl(given: string): string {
  const complete = given.includes("://") ? given : `http://${given}`;
  const url = URL.canParse(complete) ? new URL(complete) : undefined;
  if (!url) throw complaint(given, "is not a URL");
  if (!/^https?:$/.test(url.protocol)) throw complaint(given, "must begin with http:// or https://");
  return (url.origin + url.pathname).replace(/\/+$/, "");
}

function complaint(given: string, fault: string): ConfigError {
  return new ConfigError(`--url=${JSON.stringify(given)} ${fault}. Example: --url=${DEFAULT_URL}`);
}
