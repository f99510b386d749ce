import { isIP } from "node:net";
import type { Context } from "hono";
import type { HttpEnv, Origin } from "./context.ts";

const REQUEST_ID = /^[\w.:=+/-]{1,128}$/;

/** The client's `X-Request-Id` where it is one that can be logged and sent back, else a new one. */
export function requestId(offered: string | null): string {
  return offered !== null && REQUEST_ID.test(offered) ? offered : crypto.randomUUID();
}

/**
 * The client's address. Each of the trusted proxies has added the address that it saw to the end of
 * `X-Forwarded-For`, so exactly that many entries are believed; what lies before them is anyone's claim.
 * With fewer entries than proxies the request did not come through all of them, and none is believed.
 */
export function clientIp(c: Context<HttpEnv>, trustedProxies: number): string {
  const peer = c.env.server.requestIP(c.env.received ?? c.req.raw)?.address;
  const direct = peer === undefined ? "unknown" : plainAddress(peer);
  if (trustedProxies === 0) return direct;
  return forwardedAddress(c.req.raw.headers.get("x-forwarded-for"), trustedProxies) ?? direct;
}

/** Finds the address when it is asked for: that costs as much as all the rest, and reading rarely needs it. */
export class RequestOrigin implements Origin {
  readonly requestId: string;
  readonly userAgent: string | null;
  readonly #c: Context<HttpEnv>;
  readonly #trustedProxies: number;
  #ip: string | undefined;

  constructor(c: Context<HttpEnv>, requestId: string, trustedProxies: number) {
    this.requestId = requestId;
    this.userAgent = c.req.raw.headers.get("user-agent");
    this.#c = c;
    this.#trustedProxies = trustedProxies;
    // A closed connection has no address: who hangs up early must not stay out of the audit.
    if (c.req.method !== "GET") this.#ip = clientIp(c, trustedProxies);
  }

  get ip(): string {
    this.#ip ??= clientIp(this.#c, this.#trustedProxies);
    return this.#ip;
  }
}

/** Whether the client speaks HTTPS: to us, or to the first trusted proxy. */
export function isSecure(c: Context<HttpEnv>, trustedProxies: number): boolean {
  if (c.req.raw.url.startsWith("https:")) return true;
  if (trustedProxies === 0) return false;
  const hops = c.req.raw.headers.get("x-forwarded-proto")?.split(",") ?? [];
  return hops[Math.max(0, hops.length - trustedProxies)]?.trim().toLowerCase() === "https";
}

/** The `trustedProxies`th address from the end of an `X-Forwarded-For`; undefined when it is none. */
export function forwardedAddress(header: string | null, trustedProxies: number): string | undefined {
  const claimed = header?.split(",").at(-trustedProxies)?.trim();
  if (!claimed) return undefined;
  const address = isIP(claimed) ? claimed : /^(?:\[(.+)\]|([\d.]+)):\d+$/.exec(claimed)?.slice(1).join("");
  return address !== undefined && isIP(address) ? plainAddress(address) : undefined;
}

/** Whose requests are counted together: an IPv4 address, or the /64 that one IPv6 link is given. */
export function networkOf(address: string): string {
  return isIpv6(address) ? prefixOf(address, 64) : address;
}

/** The /48 that one IPv6 site may be given, with 65,536 networks to come from; undefined for IPv4. */
export function siteOf(address: string): string | undefined {
  return isIpv6(address) ? prefixOf(address, 48) : undefined;
}

function isIpv6(address: string): boolean {
  return address.includes(":");
}

function prefixOf(address: string, bits: 48 | 64): string {
  const [head = "", tail] = address.toLowerCase().split("%", 1)[0]?.split("::") ?? [];
  const groups = head === "" ? [] : head.split(":");
  if (tail !== undefined) {
    const after = tail === "" ? [] : tail.split(":");
    while (groups.length + after.length < 8) groups.push("0");
    groups.push(...after);
  }
  return `${groups
    .slice(0, bits / 16)
    .map((group) => group.replace(/^0+(?=.)/, ""))
    .join(":")}::/${bits}`;
}

/** A dual-stack socket shows IPv4 clients as `::ffff:192.0.2.1`. */
function plainAddress(address: string): string {
  return /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address)?.[1] ?? address;
}
