import type { AuditRow } from "./audit-query.ts";

/** An audit row as the API shows it. */
export function auditBody(row: AuditRow) {
  return {
    id: row.id,
    timestamp: new Date(row.at).toISOString(),
    user_id: row.userId,
    username: row.username,
    action: row.action,
    target_id: row.targetId,
    outcome: row.outcome,
    ip_address: row.ip,
    user_agent: row.userAgent,
    request_id: row.requestId,
    detail: row.detail,
  };
}

export const EXPORT_FORMATS = {
  ndjson: { contentType: "application/x-ndjson", lines: ndjsonLines },
  csv: { contentType: "text/csv; charset=utf-8; header=present", lines: csvLines },
} as const;

/** Lines as a stream that reads on only as fast as they are taken. */
export function lineStream(lines: Generator<string>): ReadableStream<Uint8Array> {
  const encoder = new TextEncoder();
  return new ReadableStream({
    pull(controller) {
      const chunk = take(lines, 500);
      if (chunk === "") controller.close();
      else controller.enqueue(encoder.encode(chunk));
    },
    cancel() {
      lines.return(undefined);
    },
  });
}

function take(lines: Generator<string>, count: number): string {
  let taken = "";
  for (let n = 0; n < count; n++) {
    const { value, done } = lines.next();
    if (done) break;
    taken += value;
  }
  return taken;
}

function* ndjsonLines(rows: Iterable<AuditRow>): Generator<string> {
  for (const row of rows) yield `${JSON.stringify(auditBody(row))}\n`;
}

const COLUMNS = [
  "id",
  "timestamp",
  "user_id",
  "username",
  "action",
  "target_id",
  "outcome",
  "ip_address",
  "user_agent",
  "request_id",
  "detail",
] as const;

/** RFC 4180. */
function* csvLines(rows: Iterable<AuditRow>): Generator<string> {
  yield `${COLUMNS.join(",")}\r\n`;
  for (const row of rows) {
    const body = auditBody(row);
    yield `${COLUMNS.map((column) => cell(body[column])).join(",")}\r\n`;
  }
}

/** Spreadsheets run what begins like a formula, and a user agent can begin with anything. */
function cell(value: string | Record<string, unknown> | null): string {
  if (value === null) return "";
  const text = typeof value === "string" ? value : JSON.stringify(value);
  const harmless = /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(harmless) ? `"${harmless.replaceAll('"', '""')}"` : harmless;
}
