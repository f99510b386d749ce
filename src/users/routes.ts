import { createRoute, z } from "@hono/zod-openapi";
import { audit } from "../audit/audit.ts";
import { busy, Email, FullName, NewPassword, ownAccount, UserBody, userBody } from "../auth/account.ts";
import type { Guard } from "../auth/guard.ts";
import type { Passwords } from "../auth/passwords.ts";
import { REFRESH_TOKEN_MS, type SessionRow, type Sessions } from "../auth/sessions.ts";
import type { VerificationDeps } from "../auth/verification.ts";
import { inTransaction } from "../db/open.ts";
import { notFound } from "../errors.ts";
import { auditActor } from "../http/audit-actor.ts";
import { ErrorBody, RetryAfterHeaders } from "../http/errors.ts";
import { PageHeaders, PageQuery, setPageHeaders } from "../http/pagination.ts";
import { bearer, errors, json, jsonBody, Message, newRouter } from "../http/router.ts";
import { createUserAdminRoutes, type UserAdminRoutesDeps } from "./admin-routes.ts";
import { deleteAccount } from "./deletion.ts";
import type { UserEvent } from "./events.ts";
import { changePassword } from "./password.ts";
import { type ProfileChange, updateProfile } from "./profile.ts";

export interface UserRoutesDeps extends VerificationDeps, UserAdminRoutesDeps {
  passwords: Passwords;
  sessions: Sessions;
  guard: Guard;
  onUserDeleted: UserEvent;
}

const tags = ["Users"];
const PATH = "/api/v1/users/me";
const unauthenticated = { 401: "Not authenticated" };

const Profile = z
  .object({
    full_name: FullName.nullish(),
    email: Email.nullish().openapi({ type: ["string", "null"] }),
    avatar_url: z
      .url({ protocol: /^https?$/, message: "Must be an http or https URL" })
      // Without words of its own it would say those of the URL.
      .max(2048, "Must be at most 2048 characters long")
      .nullish()
      .openapi({ example: "https://example.com/me.png" }),
  })
  .openapi("ProfileUpdate");

const PasswordChange = z
  .object({
    current_password: z.string().min(1).max(1024).openapi({ format: "password" }),
    new_password: NewPassword,
  })
  .openapi("PasswordChange");

const SessionBody = z
  .object({
    id: z.string(),
    created_at: z.iso.datetime(),
    last_used_at: z.iso.datetime(),
    expires_at: z.iso.datetime().openapi({ description: "Unless it is refreshed before" }),
    ip_address: z.string().nullable().openapi({ example: "203.0.113.7" }),
    user_agent: z.string().nullable(),
    is_current: z.boolean().openapi({ description: "Whether it is the one that asks" }),
  })
  .openapi("Session");

const getRoute = createRoute({
  method: "get",
  path: PATH,
  operationId: "getProfile",
  tags,
  summary: "The account of who is signed in",
  security: bearer,
  responses: { 200: json(UserBody, "The account"), ...errors(unauthenticated) },
});

const updateRoute = createRoute({
  method: "put",
  path: PATH,
  operationId: "updateProfile",
  tags,
  summary: "Change one's own name, address or picture; a new address is unverified again",
  security: bearer,
  request: jsonBody(Profile),
  responses: {
    200: json(UserBody, "The account as it is now"),
    ...errors({ ...unauthenticated, 400: "Email already exists", 422: "Invalid data" }),
  },
});

const deleteRoute = createRoute({
  method: "delete",
  path: PATH,
  operationId: "deleteAccount",
  tags,
  summary: "Delete one's own account with its environments and everything personal",
  security: bearer,
  responses: {
    200: json(Message, "Deleted"),
    ...errors({ ...unauthenticated, 409: "The last active administrator" }),
  },
});

const passwordRoute = createRoute({
  method: "put",
  path: `${PATH}/password`,
  operationId: "changePassword",
  tags,
  summary: "Change one's own password; all sessions end, this one too",
  security: bearer,
  request: jsonBody(PasswordChange),
  responses: {
    200: json(Message, "Changed"),
    ...errors({
      ...unauthenticated,
      400: "The current password is wrong",
      422: "Invalid data, or a weak password",
    }),
    403: { ...json(ErrorBody, "Locked after too many wrong passwords"), headers: RetryAfterHeaders },
    ...busy,
  },
});

const sessionsRoute = createRoute({
  method: "get",
  path: `${PATH}/sessions`,
  operationId: "listSessions",
  tags,
  summary: "Where one is signed in",
  security: bearer,
  request: { query: PageQuery },
  responses: {
    200: { ...json(z.array(SessionBody), "Sessions, newest first"), headers: PageHeaders },
    ...errors({ ...unauthenticated, 422: "Invalid query" }),
  },
});

const revokeRoute = createRoute({
  method: "delete",
  path: `${PATH}/sessions/{session_id}`,
  operationId: "revokeSession",
  tags,
  summary: "Sign out elsewhere: the session's tokens and WebSockets end at once",
  security: bearer,
  request: { params: z.object({ session_id: z.string() }) },
  responses: { 204: { description: "Ended" }, ...errors({ ...unauthenticated, 404: "No such session" }) },
});

/** What users do with their own account, and administrators with those of others. */
export function createUserRoutes(deps: UserRoutesDeps) {
  const { db, now, sessions, guard } = deps;
  const middleware = guard.requireActor;
  const router = newRouter();

  router.openapi({ ...getRoute, middleware }, (c) => {
    return c.json(userBody(ownAccount(db, c.get("actor").userId)), 200);
  });

  router.openapi({ ...updateRoute, middleware }, (c) => {
    const change = profileChange(c.req.valid("json"));
    return c.json(userBody(updateProfile(deps, c.get("actor").userId, change, auditActor(c))), 200);
  });

  router.openapi({ ...deleteRoute, middleware }, (c) => {
    deleteAccount(deps, c.get("actor").userId, auditActor(c));
    return c.json({ message: "User account deleted successfully" }, 200);
  });

  router.openapi({ ...passwordRoute, middleware }, async (c) => {
    const { current_password: current, new_password: next } = c.req.valid("json");
    await changePassword(deps, c.get("actor").userId, { current, next }, auditActor(c));
    return c.json({ message: "Password changed successfully" }, 200);
  });

  router.openapi({ ...sessionsRoute, middleware }, (c) => {
    const { userId, sessionId } = c.get("actor");
    const page = c.req.valid("query");
    const all = sessions.list(userId);
    setPageHeaders(c, page, all.length);
    const rows = all.slice(page.offset, page.offset + page.limit);
    return c.json(
      rows.map((row) => sessionBody(row, sessionId)),
      200,
    );
  });

  router.openapi({ ...revokeRoute, middleware }, (c) => {
    const { userId } = c.get("actor");
    const id = c.req.valid("param").session_id;
    inTransaction(db, (tx) => {
      if (!sessions.list(userId).some((session) => session.id === id)) throw notFound("Session");
      sessions.end(tx, id);
      audit(tx, auditActor(c), { action: "auth.session_revoke", targetId: id }, now());
    });
    return c.body(null, 204);
  });

  // Last: its /users/{user_id} would take /users/me.
  router.route("/", createUserAdminRoutes(deps));
  return router;
}

function profileChange({ full_name, email, avatar_url }: z.infer<typeof Profile>): ProfileChange {
  return {
    ...(full_name !== undefined && { fullName: full_name || null }),
    ...(avatar_url !== undefined && { avatarUrl: avatar_url }),
    // Nobody can be without an address: null is as good as absent.
    ...(email != null && { email }),
  };
}

function sessionBody(row: SessionRow, currentId: string): z.infer<typeof SessionBody> {
  return {
    id: row.id,
    created_at: new Date(row.createdAt).toISOString(),
    last_used_at: new Date(row.lastUsedAt).toISOString(),
    expires_at: new Date(Math.min(row.expiresAt, row.lastUsedAt + REFRESH_TOKEN_MS)).toISOString(),
    ip_address: row.ip,
    user_agent: row.userAgent,
    is_current: row.id === currentId,
  };
}
