import { createRoute, z } from "@hono/zod-openapi";
import type { Context } from "hono";
import { deleteCookie, getCookie, setCookie } from "hono/cookie";
import type { Db } from "../db/open.ts";
import { AppError } from "../errors.ts";
import type { HttpEnv } from "../http/context.ts";
import { errors, json, jsonBody, newRouter } from "../http/router.ts";
import type { Google, GoogleAttempt, GoogleIdentity } from "./google.ts";
import { signInWithGoogle } from "./google-accounts.ts";
import type { Sessions } from "./sessions.ts";
import { SignInBody, signInBody } from "./token-body.ts";
import type { Tokens } from "./tokens.ts";

export interface GoogleRoutesDeps {
  db: Db;
  now: () => number;
  registration: "open" | "closed";
  tokens: Tokens;
  sessions: Sessions;
  baseUrl: string;
  /** Null when it is not configured. */
  google: Google | null;
}

/** Where the browser flow comes back to, below `baseUrl`; registered with Google. */
export const GOOGLE_CALLBACK_PATH = "/api/v1/auth/google/callback";

/** As long as someone may take to choose an account at Google. */
const ATTEMPT_SECONDS = 600;

const tags = ["Authentication"];
const refusals = {
  400: "Invalid Google token",
  403: "The account is deactivated, or registration is closed",
  409: "A local account has this address and has not verified it",
  503: "Not configured, or Google can't be reached",
};

const idToken = z.string().min(1).max(16_384).nullish();
const GoogleToken = z
  .object({ token: idToken.openapi({ description: "A Google ID token" }), id_token: idToken })
  .transform(({ token, id_token }, context) => {
    const given = token ?? id_token;
    if (given != null) return given;
    context.addIssue({ code: "custom", path: ["token"], message: "This field is required" });
    return z.NEVER;
  })
  .openapi("GoogleToken");

const tokenRoute = createRoute({
  method: "post",
  path: "/api/v1/auth/google",
  operationId: "signInWithGoogle",
  tags,
  summary: "Sign in with a Google ID token",
  request: jsonBody(GoogleToken),
  responses: {
    200: json(SignInBody, "Tokens and the account"),
    ...errors({ ...refusals, 422: "Invalid data", 429: "Too many requests" }),
  },
});

const loginRoute = createRoute({
  method: "get",
  path: "/api/v1/auth/google/login",
  operationId: "beginGoogleSignIn",
  tags,
  summary: "Sign in with Google in a browser",
  responses: {
    302: { description: "To Google", headers: { Location: { schema: { type: "string" } } } },
    ...errors({ 503: "Not configured" }),
  },
});

const callbackRoute = createRoute({
  method: "get",
  path: GOOGLE_CALLBACK_PATH,
  operationId: "finishGoogleSignIn",
  tags,
  summary: "Where Google sends the browser back to",
  request: {
    query: z.object({
      code: z.string().max(4096).optional(),
      state: z.string().max(4096).optional(),
      error: z.string().max(4096).optional(),
    }),
  },
  responses: {
    200: json(SignInBody, "Tokens and the account"),
    ...errors({ ...refusals, 422: "Invalid query" }),
  },
});

/** Sign-in with Google: by ID token for apps, by redirect for browsers. */
export function createGoogleRoutes(deps: GoogleRoutesDeps) {
  const { google, tokens, now, baseUrl } = deps;
  const router = newRouter();
  const cookie = attemptCookie(baseUrl.startsWith("https:"));

  async function answer(c: Context<HttpEnv>, identify: () => Promise<GoogleIdentity>) {
    c.header("Cache-Control", "no-store");
    return signInBody(tokens, await signInWithGoogle(deps, identify, c.get("origin")), now());
  }

  router.openapi(tokenRoute, async (c) => {
    if (!google) throw notConfigured();
    return c.json(await answer(c, () => google.identify(c.req.valid("json"))), 200);
  });

  router.openapi(loginRoute, (c) => {
    if (!google?.browser) throw notConfigured();
    const { url, attempt } = google.browser.begin();
    cookie.set(c, attempt);
    c.header("Cache-Control", "no-store");
    return c.redirect(url.href, 302);
  });

  router.openapi(callbackRoute, async (c) => {
    if (!google?.browser) throw notConfigured();
    const { browser } = google;
    const query = c.req.valid("query");
    const attempt = cookie.take(c);
    return c.json(await answer(c, async () => browser.finish(...returned(query, attempt))), 200);
  });

  return router;
}

/** @throws AppError invalid for who has not set out here, or has not got there */
function returned(
  {
    code,
    state,
    error,
  }: { code?: string | undefined; state?: string | undefined; error?: string | undefined },
  attempt: GoogleAttempt | undefined,
): [code: string, attempt: GoogleAttempt] {
  if (error !== undefined) throw new AppError("invalid", "Google sign-in was not completed");
  // Only the browser that set out may come back: else anyone could sign a victim in as themselves.
  if (!attempt || state !== attempt.state || code === undefined) {
    throw new AppError("invalid", "This sign-in was not begun here, or has expired; please begin again");
  }
  return [code, attempt];
}

function notConfigured(): AppError {
  return new AppError("unavailable", "Google sign-in is not configured");
}

/** Lax: it must come along when Google redirects back. */
function attemptCookie(isSecure: boolean) {
  const name = isSecure ? "__Host-devpocket-google" : "devpocket-google";
  const options = { path: "/", secure: isSecure, httpOnly: true, sameSite: "Lax" } as const;
  return {
    set(c: Context<HttpEnv>, { state, verifier, nonce }: GoogleAttempt) {
      setCookie(c, name, [state, verifier, nonce].join("."), { ...options, maxAge: ATTEMPT_SECONDS });
    },
    /** It serves once. */
    take(c: Context<HttpEnv>): GoogleAttempt | undefined {
      const [state, verifier, nonce] = (getCookie(c, name) ?? "").split(".");
      deleteCookie(c, name, options);
      return state && verifier && nonce ? { state, verifier, nonce } : undefined;
    },
  };
}
