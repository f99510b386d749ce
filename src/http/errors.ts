import { z } from "@hono/zod-openapi";
import type { Context } from "hono";
import { HTTPException } from "hono/http-exception";
import type { ContentfulStatusCode } from "hono/utils/http-status";
import type { ZodError } from "zod";
import { AppError, type ErrorCode, type FieldError } from "../errors.ts";
import type { Logger } from "../lib/logger.ts";
import type { HttpEnv } from "./context.ts";

/** The one map from the domain's codes to HTTP. */
export const HTTP_STATUS: Record<ErrorCode, ContentfulStatusCode> = {
  invalid: 400,
  unauthenticated: 401,
  forbidden: 403,
  locked: 403,
  not_found: 404,
  method_not_allowed: 405,
  conflict: 409,
  too_large: 413,
  unsupported_media_type: 415,
  validation: 422,
  upgrade_required: 426,
  rate_limited: 429,
  unavailable: 503,
};

export const ErrorBody = z
  .object({
    detail: z.string().openapi({ example: "Environment not found" }),
    errors: z.array(z.object({ field: z.string(), message: z.string(), code: z.string() })),
    timestamp: z.iso.datetime().openapi({ example: "2024-07-24T00:00:00Z" }),
    path: z.string().openapi({ example: "/api/v1/environments" }),
    retry_after: z.int().optional().openapi({ description: "Seconds; only with 429" }),
  })
  .openapi("Error");

/** What zod found, as the error it is answered with. `invalid_json` is thrown by the body reader itself. */
export function validationError(error: ZodError): AppError {
  return new AppError("validation", "Request validation failed", {
    fields: error.issues.map((issue) => ({
      field: issue.path.map(String).join(".") || "body",
      message: issue.message,
      code: issue.code,
    })),
  });
}

/** Hono's `onError`: the only place that turns an error into an answer. */
export function answerError(log: Logger) {
  return (error: Error, c: Context<HttpEnv>): Response => {
    const known = asAppError(error);
    if (known) return errorResponse(c, known);
    log.error("unexpected error", {
      request_id: c.get("origin")?.requestId,
      path: c.req.path,
      stack: error.stack,
    });
    return c.json(body(c, "Internal server error", []), 500);
  };
}

/** The answer that `error` stands for. */
export function errorResponse(c: Context<HttpEnv>, error: AppError): Response {
  if (error.code === "unauthenticated") c.header("WWW-Authenticate", "Bearer");
  if (error.retryAfterSeconds !== undefined) c.header("Retry-After", String(error.retryAfterSeconds));
  const shape = body(c, error.message, error.fields);
  const answer =
    error.code === "rate_limited" ? { ...shape, retry_after: error.retryAfterSeconds ?? 60 } : shape;
  return c.json(answer, HTTP_STATUS[error.code]);
}

function body(c: Context<HttpEnv>, detail: string, errors: readonly FieldError[]) {
  return { detail, errors, timestamp: new Date().toISOString(), path: c.req.path };
}

/** Hono throws its own exceptions for a body that can't be read. */
function asAppError(error: Error): AppError | undefined {
  if (error instanceof AppError) return error;
  if (error instanceof HTTPException && error.status === 400) {
    return new AppError("validation", "Request validation failed", {
      fields: [{ field: "body", message: "The body is not valid JSON", code: "invalid_json" }],
    });
  }
  return undefined;
}
