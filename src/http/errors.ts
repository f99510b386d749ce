import { z } from "@hono/zod-openapi";
import type { Context } from "hono";
import { HTTPException } from "hono/http-exception";
import type { ContentfulStatusCode } from "hono/utils/http-status";
import { AppError, type ErrorCode, invalidField } from "../errors.ts";
import type { Logger } from "../lib/logger.ts";
import { RuntimeRejected, RuntimeUnreachable } from "../runtime/runtime.ts";
import { invalidJson } from "./body.ts";
import type { HttpEnv } from "./context.ts";
import { FIELD_CODES } from "./validation.ts";

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

const FieldErrorBody = z
  .object({
    field: z.string().openapi({ example: "password" }),
    message: z.string().openapi({ example: "Password must be at least 8 characters" }),
    code: z.string().openapi({
      example: "min_length",
      description: [
        "Of a request that does not fit its schema:",
        ...Object.entries(FIELD_CODES).map(([code, meaning]) => `- \`${code}\`: ${meaning}`),
        "",
        "Rules of the product have codes of their own, such as `invalid_state` and `plan_limit`.",
      ].join("\n"),
    }),
  })
  .openapi("FieldError");

export const ErrorBody = z
  .object({
    detail: z.string().openapi({ example: "Request validation failed" }),
    errors: z.array(FieldErrorBody).openapi({ description: "Empty when no field is at fault" }),
    timestamp: z.iso.datetime().openapi({ example: "2024-07-24T00:00:00.000Z" }),
    path: z.string().openapi({ example: "/api/v1/environments" }),
  })
  .openapi("Error");

/** Of an answer that says when it may be tried again. */
export const RetryAfterHeaders = {
  "Retry-After": { $ref: "#/components/headers/Retry-After" },
};

export const RateLimitErrorBody = ErrorBody.extend({
  retry_after: z.int().openapi({ description: "Seconds until the next request is allowed", example: 60 }),
}).openapi("RateLimitError");

/** Hono's `onError`: the only place that turns an error into an answer. */
export function answerError(log: Logger) {
  return (error: Error, c: Context<HttpEnv>): Response => {
    const known = asAppError(error, c);
    if (known) return errorResponse(c, known);
    log.error("unexpected error", {
      request_id: c.get("origin")?.requestId,
      path: c.req.path,
      stack: error.stack || String(error),
    });
    if (isDiskFull(error)) return errorResponse(c, new AppError("unavailable", "The server's disk is full"));
    return c.json(body(c, new AppError("unavailable", "Internal server error")), 500);
  };
}

/** The answer that `error` stands for. */
export function errorResponse(c: Context<HttpEnv>, error: AppError): Response {
  const headers: Record<string, string> = {};
  if (error.code === "unauthenticated") headers["WWW-Authenticate"] = "Bearer";
  if (error.code === "upgrade_required") headers.Upgrade = "websocket";
  const retryAfter = retryAfterSeconds(error);
  if (retryAfter !== undefined) headers["Retry-After"] = String(retryAfter);
  return c.json(body(c, error), HTTP_STATUS[error.code], headers);
}

function body(c: Context<HttpEnv>, error: AppError): z.infer<typeof ErrorBody> {
  return {
    detail: error.message,
    errors: [...error.fields],
    timestamp: new Date().toISOString(),
    path: c.req.path,
    ...(error.code === "rate_limited" ? { retry_after: retryAfterSeconds(error) } : {}),
  };
}

/** Every refusal for being too much says when to come back, one without a clock of its own within a minute. */
function retryAfterSeconds({ code, retryAfterSeconds }: AppError): number | undefined {
  return retryAfterSeconds ?? (code === "rate_limited" ? 60 : undefined);
}

/** SQLite's own code, on the error or on what a query's error was caused by. */
function isDiskFull(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  return ("code" in error && error.code === "SQLITE_FULL") || isDiskFull(error.cause);
}

/** Hono's validators throw an exception of their own for a body that they can't read. */
function asAppError(error: Error, c: Context<HttpEnv>): AppError | undefined {
  if (error instanceof AppError) return error;
  if (error instanceof RuntimeUnreachable) return new AppError("unavailable", "The cluster can't be reached");
  if (error instanceof RuntimeRejected) return new AppError("unavailable", error.message);
  if (!(error instanceof HTTPException)) return undefined;
  if (error.status === 415) return new AppError("unsupported_media_type", "The body is of another type");
  if (error.status !== 400) return undefined;
  const isJson = c.req.header("content-type") === "application/json";
  return isJson ? invalidJson("The body is not valid JSON") : invalidField("body", "The form can't be read");
}
