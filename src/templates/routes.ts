import { createRoute, z } from "@hono/zod-openapi";
import type { Guard } from "../auth/guard.ts";
import type { Db } from "../db/open.ts";
import { TEMPLATE_CATEGORIES, TEMPLATE_STATUSES } from "../db/schema.ts";
import { notFound } from "../errors.ts";
import { auditActor } from "../http/audit-actor.ts";
import type { Actor } from "../http/context.ts";
import { PageHeaders, PageQuery, setPageHeaders } from "../http/pagination.ts";
import { bearer, errors, json, jsonBody, Message, newRouter } from "../http/router.ts";
import {
  TemplateBody,
  TemplateCreate,
  TemplateUpdate,
  templateBody,
  templateChange,
  templateValues,
} from "./schemas.ts";
import {
  createTemplate,
  deprecateTemplate,
  initializeTemplates,
  listTemplates,
  type Template,
  templateFinder,
  updateTemplate,
} from "./templates.ts";

const path = "/api/v1/templates";
const tags = ["Templates"];
const admin = { 401: "Not authenticated", 403: "Administrator role required" };

const PathParams = z.object({
  template_id: z.string().openapi({ description: "Id, name or slug", example: "python" }),
});

const listRoute = createRoute({
  method: "get",
  path,
  operationId: "listTemplates",
  tags,
  summary: "List templates, newest first; deprecated ones are shown to administrators only",
  security: bearer,
  request: {
    query: PageQuery.extend({
      category: z.enum(TEMPLATE_CATEGORIES).optional(),
      status: z.enum(TEMPLATE_STATUSES).optional(),
    }),
  },
  responses: {
    200: { ...json(z.array(TemplateBody), "Templates"), headers: PageHeaders },
    ...errors({ 401: "Not authenticated", 422: "Invalid query" }),
  },
});

const creationRoute = createRoute({
  method: "post",
  path,
  operationId: "createTemplate",
  tags,
  summary: "Create a template",
  security: bearer,
  request: jsonBody(TemplateCreate),
  responses: {
    201: json(TemplateBody, "The new template"),
    ...errors({ 400: "The name is in use", ...admin, 422: "Invalid data" }),
  },
});

const initializeRoute = createRoute({
  method: "post",
  path: `${path}/initialize`,
  operationId: "initializeTemplates",
  tags,
  summary: "Create the default templates whose names are free",
  security: bearer,
  responses: {
    200: json(
      z
        .object({
          message: z.string().openapi({ example: "Default templates initialized successfully" }),
          templates_created: z.int().openapi({
            example: 6,
            description:
              "How many were created: all six (shell, python, nodejs, go, rust, ubuntu) where none was there",
          }),
        })
        .openapi("TemplatesInitialized"),
      "What was created",
    ),
    ...errors(admin),
  },
});

const getRoute = createRoute({
  method: "get",
  path: `${path}/{template_id}`,
  operationId: "getTemplate",
  tags,
  summary: "Get a template",
  security: bearer,
  request: { params: PathParams },
  responses: {
    200: json(TemplateBody, "The template"),
    ...errors({ 401: "Not authenticated", 404: "No such template, or deprecated" }),
  },
});

const updateRoute = createRoute({
  method: "put",
  path: `${path}/{template_id}`,
  operationId: "updateTemplate",
  tags,
  summary: "Change a template; environments that exist keep what they were made with",
  security: bearer,
  request: { params: PathParams, ...jsonBody(TemplateUpdate) },
  responses: {
    200: json(TemplateBody, "The template as it is now"),
    ...errors({ 400: "Another name", ...admin, 404: "No such template", 422: "Invalid data" }),
  },
});

const deleteRoute = createRoute({
  method: "delete",
  path: `${path}/{template_id}`,
  operationId: "deleteTemplate",
  tags,
  summary: "Deprecate a template; environments that exist go on working",
  security: bearer,
  request: { params: PathParams },
  responses: {
    200: json(Message, "Deprecated"),
    ...errors({ ...admin, 404: "No such template" }),
  },
});

interface TemplateRoutesDeps {
  db: Db;
  now: () => number;
  guard: Pick<Guard, "requireActor" | "requireAdmin">;
}

export function createTemplateRoutes({ db, now, guard }: TemplateRoutesDeps) {
  const { requireActor, requireAdmin } = guard;
  const find = templateFinder(db);
  const router = newRouter();

  function found(ref: string, actor: Actor): Template {
    const template = find(ref, actor.role);
    if (!template) throw notFound("Template");
    return template;
  }

  router.openapi({ ...listRoute, middleware: requireActor }, (c) => {
    const { category, status, ...page } = c.req.valid("query");
    const { rows, total } = listTemplates(db, c.get("actor").role, { category, status }, page);
    setPageHeaders(c, page, total);
    return c.json(rows.map(templateBody), 200);
  });

  router.openapi({ ...creationRoute, middleware: requireAdmin }, (c) => {
    const values = templateValues(c.req.valid("json"));
    return c.json(templateBody(createTemplate({ db, actor: auditActor(c), now: now() }, values)), 201);
  });

  router.openapi({ ...initializeRoute, middleware: requireAdmin }, (c) => {
    const templates_created = initializeTemplates({ db, actor: auditActor(c), now: now() });
    return c.json({ message: "Default templates initialized successfully", templates_created }, 200);
  });

  router.openapi({ ...getRoute, middleware: requireActor }, (c) =>
    c.json(templateBody(found(c.req.valid("param").template_id, c.get("actor"))), 200),
  );

  router.openapi({ ...updateRoute, middleware: requireAdmin }, (c) => {
    const { id } = found(c.req.valid("param").template_id, c.get("actor"));
    const change = templateChange(c.req.valid("json"));
    return c.json(templateBody(updateTemplate({ db, actor: auditActor(c), now: now() }, id, change)), 200);
  });

  router.openapi({ ...deleteRoute, middleware: requireAdmin }, (c) => {
    const { id } = found(c.req.valid("param").template_id, c.get("actor"));
    deprecateTemplate({ db, actor: auditActor(c), now: now() }, id);
    return c.json({ message: "Template deleted successfully" }, 200);
  });

  return router;
}
