import { z } from "@hono/zod-openapi";
import { type User, UserBody, userBody } from "./account.ts";
import type { RefreshToken } from "./sessions.ts";
import { ACCESS_TOKEN_MS, type Tokens } from "./tokens.ts";

export const TokenBody = z
  .object({
    access_token: z.string().openapi({ example: "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9..." }),
    refresh_token: z.string().openapi({ example: "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9..." }),
    token_type: z.literal("bearer"),
    expires_in: z.int().openapi({ description: "Seconds until the access token expires", example: 3600 }),
  })
  .openapi("Tokens");

export const SignInBody = TokenBody.extend({ user: UserBody }).openapi("SignIn");

/** A new access token beside the session's refresh token. */
export async function tokenBody(
  tokens: Tokens,
  { user, token }: { user: User; token: RefreshToken },
  now: number,
): Promise<z.infer<typeof TokenBody>> {
  // The refresh token ends with its session at the latest, and so does this.
  const expiresAt = Math.min(now + ACCESS_TOKEN_MS, token.expiresAt);
  const access = { sessionId: token.sessionId, jti: crypto.randomUUID(), issuedAt: now, expiresAt };
  return {
    access_token: await tokens.sign("access_token", user, access),
    refresh_token: await tokens.sign("refresh_token", user, token),
    token_type: "bearer",
    expires_in: Math.floor((expiresAt - now) / 1000),
  };
}

export async function signInBody(
  tokens: Tokens,
  signedIn: { user: User; token: RefreshToken },
  now: number,
): Promise<z.infer<typeof SignInBody>> {
  return { ...(await tokenBody(tokens, signedIn, now)), user: userBody(signedIn.user) };
}
