import * as v from "valibot";
import { invalidField } from "../errors.ts";
import type { TerminalSize } from "../runtime/runtime.ts";
import { TERMINAL_LIMITS } from "../terminal/limits.ts";

const cols = v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(TERMINAL_LIMITS.maxCols));
const rows = v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(TERMINAL_LIMITS.maxRows));
const offset = v.pipe(v.number(), v.safeInteger(), v.minValue(0));

const input = v.object({
  type: v.literal("input"),
  data: v.string(),
  seq: v.optional(v.pipe(v.number(), v.safeInteger(), v.minValue(1))),
});
const resize = v.object({ type: v.literal("resize"), cols, rows });
/** R2's form. */
const resizeByMetadata = v.pipe(
  v.object({ type: v.literal("resize"), metadata: v.object({ cols, rows }) }),
  v.transform(({ type, metadata }) => ({ type, ...metadata })),
);
const ack = v.object({ type: v.literal("ack"), offset });

const TerminalFrame = v.union([input, resize, resizeByMetadata, ack]);
export type TerminalFrame = v.InferOutput<typeof TerminalFrame>;

/** A client's message to a terminal; undefined for what is none. */
export function parseTerminalFrame(message: unknown): TerminalFrame | undefined {
  const result = v.safeParse(TerminalFrame, message);
  return result.success ? result.output : undefined;
}

const wholeNumber = v.pipe(v.string(), v.regex(/^\d{1,15}$/, "must be a whole number"), v.transform(Number));

const Query = v.object({
  session_id: v.optional(v.string()),
  offset: v.optional(wholeNumber),
  client_id: v.optional(
    v.pipe(v.string(), v.regex(/^[\w.-]{1,64}$/, "must be 1 to 64 letters, digits, . _ -")),
  ),
  mode: v.optional(v.picklist(["view", "edit"], "must be view or edit")),
  cols: v.optional(v.pipe(wholeNumber, cols)),
  rows: v.optional(v.pipe(wholeNumber, rows)),
});

/** What a client asks for in the URL of a terminal. */
export interface TerminalRequest {
  sessionId: string | null;
  offset: number | null;
  clientId: string | null;
  readOnly: boolean;
  size: TerminalSize | null;
}

/**
 * What of its user's a terminal with such a query is: none but the same client asks for the same again. Null: its
 * query does not say both who it is and where it comes back to, as the first one of a client does.
 */
export function placeIn(
  environmentId: string,
  { session_id, client_id, mode }: Record<string, string>,
): string | null {
  if (!session_id || !client_id) return null;
  return JSON.stringify([environmentId, session_id, client_id, mode === "view"]);
}

/** @throws AppError validation, naming the parameter */
export function parseTerminalQuery(query: Record<string, string>): TerminalRequest {
  const result = v.safeParse(Query, query, { abortEarly: true });
  if (!result.success) {
    const [issue] = result.issues;
    throw invalidField(v.getDotPath(issue) ?? "query", issue.message);
  }
  const { session_id, offset: from, client_id, mode, cols: width, rows: height } = result.output;
  return {
    sessionId: session_id || null,
    offset: from ?? null,
    clientId: client_id ?? null,
    readOnly: mode === "view",
    size: width !== undefined && height !== undefined ? { cols: width, rows: height } : null,
  };
}
