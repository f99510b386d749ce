/**
 * The closed list of what can go wrong for a reason that the caller may know. `http/errors.ts` maps each
 * to its HTTP status, `sockets/close.ts` to a close code; nothing else decides on a code.
 */
export const ERROR_CODES = [
  "invalid", // understood, but not to be had: wrong state, unknown template
  "validation", // the request does not fit its schema
  "unauthenticated",
  "forbidden",
  "locked", // forbidden for a time: too many failed sign-ins
  "not_found",
  "method_not_allowed",
  "conflict",
  "too_large",
  "unsupported_media_type",
  "upgrade_required",
  "rate_limited",
  "unavailable",
] as const;

export type ErrorCode = (typeof ERROR_CODES)[number];

/** One entry of an error body's `errors`. */
export interface FieldError {
  field: string;
  message: string;
  code: string;
}

export interface AppErrorOptions {
  fields?: FieldError[];
  /** When it may be tried again; sent as `Retry-After`. */
  retryAfterSeconds?: number;
  /** For logs only. */
  cause?: unknown;
}

/** The one error that domain code throws. `message` is for the client: it names no internals. */
export class AppError extends Error {
  override readonly name = "AppError";
  readonly code: ErrorCode;
  readonly fields: readonly FieldError[];
  readonly retryAfterSeconds: number | undefined;

  constructor(code: ErrorCode, message: string, options: AppErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.fields = options.fields ?? [];
    this.retryAfterSeconds = options.retryAfterSeconds;
  }
}

/** An error in one word, for the audit: the rule of a field that was broken, else its code. */
export function reasonOf({ fields, code }: AppError): string {
  return fields[0]?.code ?? code;
}

export function notFound(what: string): AppError {
  return new AppError("not_found", `${what} not found`);
}

/** A verb that the environment's status does not allow (the texts' "Business Logic Errors"). */
export function invalidState(message: string, expected: string): AppError {
  return new AppError("invalid", message, {
    fields: [{ field: "status", message: expected, code: "invalid_state" }],
  });
}

/** A value that fits the schema but not the rules: 422 on one field. */
export function invalidField(field: string, message: string, code = "invalid_value"): AppError {
  return new AppError("validation", "Request validation failed", { fields: [{ field, message, code }] });
}
