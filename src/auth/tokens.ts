import { createJWT, validateJWT } from "oslo/jwt";
import * as v from "valibot";
import type { Role } from "../db/schema.ts";
import { ROLES } from "../db/schema.ts";
import { AppError } from "../errors.ts";

export const ACCESS_TOKEN_MS = 3_600_000;

/** Verified access tokens that are remembered, so that a busy client's token is checked once. */
const REMEMBERED_TOKENS = 4096;

const claims = v.object({
  sub: v.string(),
  username: v.string(),
  email: v.string(),
  role: v.picklist(ROLES),
  /** The sign-in session. */
  sid: v.string(),
  jti: v.string(),
  /** Seconds since the epoch, as RFC 7519 has them. */
  iat: v.number(),
  exp: v.number(),
  type: v.picklist(["access_token", "refresh_token"]),
});

export type Claims = v.InferOutput<typeof claims>;
export type TokenType = Claims["type"];

export interface TokenSubject {
  id: string;
  username: string;
  email: string;
  role: Role;
}

export interface Tokens {
  /** @param issuedAt ms; the same arguments give the same token */
  sign(type: TokenType, subject: TokenSubject, token: SignedToken): Promise<string>;
  /**
   * The claims of a token that is signed by us, of this type and not expired. Says nothing of its session.
   *
   * @throws AppError unauthenticated
   */
  verify(type: TokenType, token: string): Promise<Claims>;
  /** The claims of an access token that was verified before and has not expired; without a promise. */
  recall(accessToken: string): Claims | undefined;
}

export interface SignedToken {
  sessionId: string;
  jti: string;
  issuedAt: number;
  expiresAt: number;
}

/** HS256 tokens. The one place that knows the JWT library. */
export function createTokens({ secret, now }: { secret: string; now: () => number }): Tokens {
  const key = new TextEncoder().encode(secret);
  const remembered = new Map<string, Claims>();

  return {
    sign: (type, { id, username, email, role }, { sessionId, jti, issuedAt, expiresAt }) =>
      createJWT("HS256", key, {
        sub: id,
        username,
        email,
        role,
        exp: Math.floor(expiresAt / 1000),
        iat: Math.floor(issuedAt / 1000),
        type,
        sid: sessionId,
        jti,
      } satisfies Claims),

    async verify(type, token) {
      const read = await readClaims(key, token);
      if (!read || read.type !== type || read.exp * 1000 <= now()) throw invalidToken();
      if (type === "access_token") remember(remembered, token, read);
      return read;
    },

    recall(accessToken) {
      const known = remembered.get(accessToken);
      if (!known || known.exp * 1000 > now()) return known;
      remembered.delete(accessToken);
      return undefined;
    },
  };
}

export function invalidToken(): AppError {
  return new AppError("unauthenticated", "Invalid or expired token");
}

/** The library throws plain errors of many kinds for what is malformed, and lets a token without `exp` pass. */
async function readClaims(key: Uint8Array, token: string): Promise<Claims | undefined> {
  try {
    const { payload } = await validateJWT("HS256", key, token);
    const result = v.safeParse(claims, payload);
    return result.success ? result.output : undefined;
  } catch {
    return undefined;
  }
}

/** Oldest first out; a Map keeps the order of insertion. */
function remember(remembered: Map<string, Claims>, token: string, known: Claims): void {
  if (remembered.has(token)) return;
  if (remembered.size >= REMEMBERED_TOKENS) {
    const [oldest] = remembered.keys();
    if (oldest !== undefined) remembered.delete(oldest);
  }
  remembered.set(token, known);
}
