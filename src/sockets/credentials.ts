import { AppError } from "../errors.ts";
import { bearerToken } from "../http/bearer.ts";

/** How a client of a WebSocket says who it is; `none`: by its first message. */
export type Credential =
  | { kind: "token"; token: string }
  | { kind: "ticket"; ticket: string }
  | { kind: "none" };

export const BINARY_PROTOCOL = "devpocket.v1.binary";
const JSON_PROTOCOL = "devpocket.v1";
const BEARER_PROTOCOL = "bearer.";

/** What of an upgrade request says who asks and how it wants to speak. */
export interface Handshake {
  authorization: string | undefined;
  /** `Sec-WebSocket-Protocol`. */
  protocols: string | undefined;
  token: string | undefined;
  ticket: string | undefined;
}

/** The credential of a request: the most deliberate one first. */
export function credentialOf(handshake: Handshake): Credential {
  if (handshake.ticket) return { kind: "ticket", ticket: handshake.ticket };
  const header = bearerToken(handshake.authorization);
  const offered = offeredProtocols(handshake.protocols).find((name) => name.startsWith(BEARER_PROTOCOL));
  const token = header ?? offered?.slice(BEARER_PROTOCOL.length) ?? handshake.token;
  return token ? { kind: "token", token } : { kind: "none" };
}

/**
 * The subprotocol to answer with: ours where it is offered. A browser that offers any and is answered with
 * none closes the connection, so the first offered one is named back when ours are not among them.
 */
export function chooseProtocol(protocols: string | undefined): string | undefined {
  const offered = offeredProtocols(protocols);
  return [BINARY_PROTOCOL, JSON_PROTOCOL].find((name) => offered.includes(name)) ?? offered[0];
}

function offeredProtocols(header: string | undefined): string[] {
  return (header ?? "")
    .split(",")
    .map((name) => name.trim())
    .filter(Boolean);
}

/**
 * A browser sends the `Origin` of the page that opens the socket, and any page can try: only the server's
 * own pages and those of `allowed` origins may. Clients that are no browsers send none.
 *
 * @throws AppError forbidden
 */
export function checkOrigin(origin: string | undefined, host: string | undefined, allowed: string[]): void {
  if (origin === undefined || allowed.includes(origin)) return;
  if (URL.canParse(origin) && host !== undefined && new URL(origin).host === host.toLowerCase()) return;
  throw new AppError("forbidden", "Origin not allowed");
}
