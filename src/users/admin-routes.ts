import { createRoute, z } from "@hono/zod-openapi";
import { UserBody, userBody } from "../auth/account.ts";
import type { Guard } from "../auth/guard.ts";
import type { Sessions } from "../auth/sessions.ts";
import type { Db } from "../db/open.ts";
import { PLANS, ROLES } from "../db/schema.ts";
import { auditActor } from "../http/audit-actor.ts";
import { PageHeaders, PageQuery, setPageHeaders } from "../http/pagination.ts";
import { bearer, errors, json, jsonBody, newRouter } from "../http/router.ts";
import { listUsers, type UserChange, updateUser } from "./administration.ts";
import type { UserEvent } from "./events.ts";

export interface UserAdminRoutesDeps {
  db: Db;
  now: () => number;
  sessions: Sessions;
  guard: Guard;
  onUserDeactivated: UserEvent;
}

const tags = ["Users"];
const refusals = { 401: "Not authenticated", 403: "Not an administrator" };

const Change = z
  .object({
    subscription_plan: z.enum(PLANS).nullish(),
    role: z.enum(ROLES).nullish(),
    is_active: z
      .boolean()
      .nullish()
      .openapi({ description: "false signs the user out and stops their environments" }),
  })
  .openapi("UserAdministration");

const listRoute = createRoute({
  method: "get",
  path: "/api/v1/users",
  operationId: "listUsers",
  tags,
  summary: "All users (administrators)",
  security: bearer,
  request: { query: PageQuery },
  responses: {
    200: { ...json(z.array(UserBody), "Users, newest first"), headers: PageHeaders },
    ...errors({ ...refusals, 422: "Invalid query" }),
  },
});

const updateRoute = createRoute({
  method: "put",
  path: "/api/v1/users/{user_id}",
  operationId: "updateUser",
  tags,
  summary: "Change a user's plan or role, or deactivate them (administrators)",
  security: bearer,
  request: { params: z.object({ user_id: z.string() }), ...jsonBody(Change) },
  responses: {
    200: json(UserBody, "The user as they are now"),
    ...errors({
      ...refusals,
      404: "No such user",
      409: "No active administrator would be left",
      422: "Invalid data",
    }),
  },
});

/** What administrators do with other people's accounts. */
export function createUserAdminRoutes(deps: UserAdminRoutesDeps) {
  const middleware = deps.guard.requireAdmin;
  const router = newRouter();

  router.openapi({ ...listRoute, middleware }, (c) => {
    const page = c.req.valid("query");
    const { users, total } = listUsers(deps.db, page);
    setPageHeaders(c, page, total);
    return c.json(users.map(userBody), 200);
  });

  router.openapi({ ...updateRoute, middleware }, (c) => {
    const change = userChange(c.req.valid("json"));
    const user = updateUser(deps, c.req.valid("param").user_id, change, auditActor(c));
    return c.json(userBody(user), 200);
  });

  return router;
}

/** Nulls are as good as absent. */
function userChange({ subscription_plan, role, is_active }: z.infer<typeof Change>): UserChange {
  return {
    ...(subscription_plan != null && { plan: subscription_plan }),
    ...(role != null && { role }),
    ...(is_active != null && { isActive: is_active }),
  };
}
