import { AppError, type ErrorCode } from "../errors.ts";

/** Close codes of RFC 6455, section 7.4.1, and the IANA registry (1013). */
export const CLOSE = {
  normal: 1000,
  goingAway: 1001,
  policy: 1008,
  tooBig: 1009,
  internal: 1011,
  tryAgainLater: 1013,
} as const;

/** Of a connection whose client has made another in its place. */
export const RESUMED_ELSEWHERE = "Resumed on another connection";

export type CloseCode = (typeof CLOSE)[keyof typeof CLOSE];

/** The one map from the domain's codes to close codes; the specification refuses with 1008. */
export const CLOSE_CODE: Record<ErrorCode, CloseCode> = {
  invalid: CLOSE.policy,
  validation: CLOSE.policy,
  unauthenticated: CLOSE.policy,
  forbidden: CLOSE.policy,
  locked: CLOSE.policy,
  not_found: CLOSE.policy,
  method_not_allowed: CLOSE.policy,
  conflict: CLOSE.policy,
  too_large: CLOSE.tooBig,
  unsupported_media_type: CLOSE.policy,
  upgrade_required: CLOSE.policy,
  rate_limited: CLOSE.policy,
  unavailable: CLOSE.tryAgainLater,
};

/** How a connection ends because of `error`; undefined for an error that the client is told nothing of. */
export function refusal(error: unknown): { code: CloseCode; message: string } | undefined {
  if (!(error instanceof AppError)) return undefined;
  const field = error.code === "validation" ? error.fields[0] : undefined;
  return {
    code: CLOSE_CODE[error.code],
    message: field ? `${field.field}: ${field.message}` : error.message,
  };
}

const MAX_REASON_BYTES = 123;

/** `text` as a close frame can carry it: at most 123 bytes of UTF-8, no character cut. */
export function closeReason(text: string): string {
  let reason = text;
  while (Buffer.byteLength(reason) > MAX_REASON_BYTES) reason = [...reason].slice(0, -1).join("");
  return reason;
}
