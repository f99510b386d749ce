import { createRoute, z } from "@hono/zod-openapi";
import { audit } from "../audit/audit.ts";
import { type Db, inTransaction } from "../db/open.ts";
import { auditActor } from "../http/audit-actor.ts";
import { ErrorBody, RetryAfterHeaders } from "../http/errors.ts";
import { bearer, errors, json, jsonBody, Message, newRouter } from "../http/router.ts";
import type { Mailer } from "../mail/mailer.ts";
import { busy, Email, FullName, NewPassword, ownAccount, UserBody, Username, userBody } from "./account.ts";
import type { Guard } from "./guard.ts";
import type { Passwords } from "./passwords.ts";
import { refresh } from "./refresh.ts";
import { register } from "./register.ts";
import type { Sessions } from "./sessions.ts";
import { signIn } from "./sign-in.ts";
import { SignInBody, signInBody, TokenBody, tokenBody } from "./token-body.ts";
import type { Tokens } from "./tokens.ts";

export interface AuthRoutesDeps {
  db: Db;
  now: () => number;
  mailer: Mailer;
  /** Where links in messages lead to, without a slash at its end. */
  baseUrl: string;
  registration: "open" | "closed";
  passwords: Passwords;
  tokens: Tokens;
  sessions: Sessions;
  guard: Guard;
}

const Registration = z
  .object({
    username: Username,
    email: Email,
    password: NewPassword,
    full_name: FullName.nullish(),
  })
  .openapi("Registration");

/** Every spelling of the name that the texts use; null in one is as good as absent. */
const Credentials = z
  .object({
    username_or_email: z.string().min(1).max(254).nullish().openapi({ example: "johndoe" }),
    email: z.string().min(1).max(254).nullish(),
    username: z.string().min(1).max(254).nullish(),
    password: z.string().min(1).max(1024).openapi({ format: "password", example: "securePassword123" }),
  })
  .transform(({ username_or_email, email, username, password }, context) => {
    const name = username_or_email ?? email ?? username;
    if (name != null) return { name: name.trim(), password };
    context.addIssue({ code: "custom", path: ["username_or_email"], message: "Required" });
    return z.NEVER;
  })
  .openapi("Credentials");

const RefreshRequest = z.object({ refresh_token: z.string().min(1).max(4096) }).openapi("RefreshRequest");

const registerRoute = createRoute({
  method: "post",
  path: "/api/v1/auth/register",
  operationId: "register",
  tags: ["Authentication"],
  summary: "Register a new account",
  request: jsonBody(Registration),
  responses: {
    201: json(UserBody, "The new account"),
    ...errors({
      403: "Registration is closed",
      409: "Username or email already in use",
      422: "Invalid data, or a weak password",
      429: "Too many requests",
    }),
    ...busy,
  },
});

const loginRoute = createRoute({
  method: "post",
  path: "/api/v1/auth/login",
  operationId: "login",
  tags: ["Authentication"],
  summary: "Sign in with a username or email and a password",
  request: jsonBody(Credentials),
  responses: {
    200: json(SignInBody, "Tokens and the account"),
    ...errors({
      401: "Incorrect username or password",
      422: "Invalid data",
      429: "Too many requests",
    }),
    403: {
      ...json(ErrorBody, "Locked after too many failed attempts, or deactivated"),
      headers: RetryAfterHeaders,
    },
    ...busy,
  },
});

const refreshRoute = createRoute({
  method: "post",
  path: "/api/v1/auth/refresh",
  operationId: "refresh",
  tags: ["Authentication"],
  summary: "Exchange a refresh token for new tokens",
  request: jsonBody(RefreshRequest),
  responses: {
    200: json(TokenBody, "New tokens; the refresh token replaces the one that was sent"),
    ...errors({ 401: "Invalid, expired, revoked or reused token", 422: "Invalid data" }),
  },
});

const logoutRoute = createRoute({
  method: "post",
  path: "/api/v1/auth/logout",
  operationId: "logout",
  tags: ["Authentication"],
  summary: "Sign out: the session, its tokens and its WebSockets end at once",
  security: bearer,
  responses: { 200: json(Message, "Signed out"), ...errors({ 401: "Not authenticated" }) },
});

const meRoute = createRoute({
  method: "get",
  path: "/api/v1/auth/me",
  operationId: "getCurrentUser",
  tags: ["Authentication"],
  summary: "Who is signed in",
  security: bearer,
  responses: { 200: json(UserBody, "The account"), ...errors({ 401: "Not authenticated" }) },
});

/** Registration, sign-in with a password, and the life of a session. */
export function createAuthRoutes(deps: AuthRoutesDeps) {
  const { db, now, tokens, sessions, guard } = deps;
  const router = newRouter();

  router.openapi(registerRoute, async (c) => {
    const { full_name, ...names } = c.req.valid("json");
    const user = await register(deps, { ...names, fullName: full_name || null }, c.get("origin"));
    return c.json(userBody(user), 201);
  });

  router.openapi(loginRoute, async (c) => {
    c.header("Cache-Control", "no-store");
    const signedIn = await signIn(deps, c.req.valid("json"), c.get("origin"));
    return c.json(await signInBody(tokens, signedIn, now()), 200);
  });

  router.openapi(refreshRoute, async (c) => {
    c.header("Cache-Control", "no-store");
    const claims = await tokens.verify("refresh_token", c.req.valid("json").refresh_token);
    return c.json(await tokenBody(tokens, refresh(deps, claims, c.get("origin")), now()), 200);
  });

  router.openapi({ ...logoutRoute, middleware: guard.requireActor }, (c) => {
    const actor = c.get("actor");
    inTransaction(db, (tx) => {
      sessions.end(tx, actor.sessionId);
      const entry = { action: "auth.logout", targetId: actor.userId, detail: { session: actor.sessionId } };
      audit(tx, auditActor(c), entry, now());
    });
    return c.json({ message: "Successfully logged out" }, 200);
  });

  router.openapi({ ...meRoute, middleware: guard.requireActor }, (c) => {
    return c.json(userBody(ownAccount(db, c.get("actor").userId)), 200);
  });

  return router;
}
