export const LOG_LEVELS = ["debug", "info", "warn", "error"] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

/** Values are written as they are: callers never pass a token, password, request body or query token. */
export type LogFields = Record<string, unknown>;

export interface Logger {
  debug(message: string, fields?: LogFields): void;
  info(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  error(message: string, fields?: LogFields): void;
}

interface LoggerOptions {
  format: "text" | "json";
  level: LogLevel;
  write?: (line: string) => void;
  now?: () => number;
}

/** A logger that writes one line per event to standard error: JSON, or readable. */
export function createLogger({
  format,
  level,
  write = batched((text) => void process.stderr.write(text)),
  now = Date.now,
}: LoggerOptions): Logger {
  const threshold = LOG_LEVELS.indexOf(level);
  const render = format === "json" ? jsonLine : textLine;
  const at = (name: LogLevel) =>
    LOG_LEVELS.indexOf(name) < threshold
      ? () => {}
      : (message: string, fields: LogFields = {}) => write(render(new Date(now()), name, message, fields));
  return { debug: at("debug"), info: at("info"), warn: at("warn"), error: at("error") };
}

/** Writes what comes in one turn of the event loop at once: a system call costs more than a line. */
export function batched(write: (text: string) => void): (line: string) => void {
  let pending = "";
  const flush = () => {
    const text = pending;
    pending = "";
    if (text !== "") write(text);
  };
  process.on("exit", flush);
  return (line) => {
    if (pending === "") setImmediate(flush);
    pending += line;
  };
}

function jsonLine(time: Date, level: LogLevel, message: string, fields: LogFields): string {
  const line = { time: time.toISOString(), level, message, ...fields };
  // A replacer makes it several times as slow, and most lines have nothing for it.
  const isFlat = Object.values(fields).every((value) => typeof value !== "object");
  return `${isFlat ? JSON.stringify(line) : JSON.stringify(line, plain)}\n`;
}

function textLine(time: Date, level: LogLevel, message: string, fields: LogFields): string {
  const shown = Object.entries(fields)
    .filter(([, value]) => value !== undefined)
    .map(([key, value]) => `${key}=${textValue(value)}`);
  return `${[time.toISOString(), level.toUpperCase().padEnd(5), message, ...shown].join(" ")}\n`;
}

function textValue(value: unknown): string {
  const json = JSON.stringify(value, plain) ?? "undefined";
  return typeof value === "string" && /^[\w./:@+-]+$/.test(value) ? value : json;
}

/** Errors have no enumerable fields of their own: JSON would show `{}`. */
function plain(_key: string, value: unknown): unknown {
  return value instanceof Error ? `${value.name}: ${value.message}` : value;
}
