import { createRoute, z } from "@hono/zod-openapi";
import { audit } from "../audit/audit.ts";
import type { Guard } from "../auth/guard.ts";
import type { Db } from "../db/open.ts";
import { AUDIT_OUTCOMES } from "../db/schema.ts";
import { auditActor } from "../http/audit-actor.ts";
import { PageHeaders, PageQuery, setPageHeaders } from "../http/pagination.ts";
import { bearer, errors, json, newRouter } from "../http/router.ts";
import { auditBody, EXPORT_FORMATS, lineStream } from "./audit-export.ts";
import { eachAudit, findAudit } from "./audit-query.ts";

export interface AuditRoutesDeps {
  db: Db;
  now: () => number;
  guard: Guard;
}

const AuditEntry = z
  .object({
    id: z.string(),
    timestamp: z.iso.datetime(),
    user_id: z.string().nullable().openapi({ description: "null for DevPocket itself and for nobody known" }),
    username: z.string().nullable(),
    action: z.string().openapi({ example: "auth.login" }),
    target_id: z.string().nullable(),
    outcome: z.enum(AUDIT_OUTCOMES),
    ip_address: z.string().nullable(),
    user_agent: z.string().nullable(),
    request_id: z.string().nullable(),
    detail: z.record(z.string(), z.unknown()),
  })
  .openapi("AuditEntry");

const instant = (description: string) =>
  z
    .union([z.iso.datetime({ offset: true }), z.iso.date()], "Must be a date or an ISO 8601 time")
    .transform((text) => Date.parse(text))
    .optional()
    .openapi({ type: "string", description, example: "2024-07-24T00:00:00Z" });

const text = (description: string, example: string) =>
  z.string().max(200).optional().openapi({ description, example });

const Filter = z.object({
  user: text("Id or username of who did it", "johndoe"),
  action: text("The action; with * at its end, all that begin so", "auth.*"),
  target: text("Id of what it was done to", "507f1f77bcf86cd799439011"),
  outcome: z.enum(AUDIT_OUTCOMES).optional(),
  from: instant("Not before this"),
  to: instant("Before this"),
});

const refusals = { 401: "Not authenticated", 403: "Not an administrator", 422: "Invalid query" };

const listRoute = createRoute({
  method: "get",
  path: "/api/v1/audit",
  operationId: "listAudit",
  tags: ["Audit"],
  summary: "Who did what, when and from where (administrators)",
  security: bearer,
  request: { query: Filter.extend(PageQuery.shape) },
  responses: {
    200: { ...json(z.array(AuditEntry), "Entries, newest first"), headers: PageHeaders },
    ...errors(refusals),
  },
});

const exportRoute = createRoute({
  method: "get",
  path: "/api/v1/audit/export",
  operationId: "exportAudit",
  tags: ["Audit"],
  summary: "All entries that the filters leave, as a file (administrators)",
  security: bearer,
  request: { query: Filter.extend({ format: z.enum(["ndjson", "csv"]).default("ndjson") }) },
  responses: {
    200: {
      description: "Entries, newest first, one a line",
      content: {
        "application/x-ndjson": { schema: z.string() },
        "text/csv": { schema: z.string() },
      },
    },
    ...errors(refusals),
  },
});

/** The audit log, for administrators. */
export function createAuditRoutes({ db, now, guard }: AuditRoutesDeps) {
  const middleware = guard.requireAdmin;
  const router = newRouter();

  router.openapi({ ...listRoute, middleware }, (c) => {
    const { limit, offset, ...filter } = c.req.valid("query");
    const { rows, total } = findAudit(db, filter, { limit, offset });
    setPageHeaders(c, { limit, offset }, total);
    return c.json(rows.map(auditBody), 200);
  });

  router.openapi({ ...exportRoute, middleware }, (c) => {
    const { format, ...filter } = c.req.valid("query");
    audit(db, auditActor(c), { action: "audit.export", detail: { format } }, now());
    const { contentType, lines } = EXPORT_FORMATS[format];
    return c.body(lineStream(lines(eachAudit(db, filter))), 200, {
      "Content-Type": contentType,
      "Content-Disposition": `attachment; filename="devpocket-audit.${format}"`,
    });
  });

  return router;
}
