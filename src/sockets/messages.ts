import { z } from "@hono/zod-openapi";
import { ENVIRONMENT_STATUSES, LOG_LEVELS, LOG_SOURCES } from "../db/schema.ts";
import { TERMINAL_LIMITS } from "../terminal/limits.ts";

/*
 * The JSON messages of the WebSockets, for the OpenAPI document only: it has no words of its own for them,
 * but clients are generated from its schemas. What comes in is checked by terminal-frames.ts.
 */

const cols = () => z.int().min(1).max(TERMINAL_LIMITS.maxCols).openapi({ example: 80 });
const rows = () => z.int().min(1).max(TERMINAL_LIMITS.maxRows).openapi({ example: 24 });
const offset = (description: string) => z.int().min(0).openapi({ description, example: 4096 });
const id = () => z.string().openapi({ example: "0193a5b2c4d6000012ab34cd" });
const time = () => z.iso.datetime().openapi({ example: "2024-01-01T00:01:30.000Z" });

const ping = z.object({ type: z.literal("ping") });
const auth = z
  .object({ type: z.literal("auth"), token: z.string().optional(), ticket: z.string().optional() })
  .openapi({ description: "First of all, within 30 seconds, by who has brought neither with the request" });

export const TerminalClientMessage = z
  .union([
    z.object({
      type: z.literal("input"),
      data: z.string().openapi({ example: "ls -la\r" }),
      seq: z.int().min(1).optional().openapi({ description: "Numbers inputs: one sent again counts once" }),
    }),
    z.object({ type: z.literal("resize"), cols: cols(), rows: rows() }),
    z.object({ type: z.literal("resize"), metadata: z.object({ cols: cols(), rows: rows() }) }),
    z.object({
      type: z.literal("ack"),
      offset: offset("How far output has been taken; binary clients, of which 512 KiB may be on the way"),
    }),
    ping,
    auth,
  ])
  .openapi("TerminalClientMessage", { example: { type: "input", data: "ls -la\r" } });

const pong = z.object({ type: z.literal("pong") });
const error = z.object({
  type: z.literal("error"),
  message: z.string().openapi({ example: "Rate limit exceeded. Please slow down." }),
});
const statusUpdate = z.object({
  type: z.literal("status_update"),
  environment_id: id(),
  status: z.enum(ENVIRONMENT_STATUSES),
  message: z.string().openapi({ example: "Creating persistent volume claim..." }),
  progress: z.int().min(0).max(100).openapi({ example: 25 }),
  timestamp: time(),
});

export const TerminalServerMessage = z
  .union([
    z
      .object({
        type: z.literal("welcome"),
        message: z.string().openapi({ example: "Connected to my-python-env" }),
        environment: z.object({
          id: id(),
          name: z.string().openapi({ example: "my-python-env" }),
          template: z.string().openapi({ example: "python" }),
          status: z.enum(ENVIRONMENT_STATUSES),
          installation_completed: z.boolean(),
          pty_enabled: z.boolean().openapi({ description: "Whether a terminal is attached" }),
        }),
        session_id: id().optional(),
        resumed: z.boolean().optional().openapi({ description: "It is the session that was asked for" }),
        offset: offset("Of the first byte that will be sent").optional(),
        restore: z.string().optional().openapi({
          description: "To be written first: sets the terminal right in the middle of its output",
        }),
        cols: cols().optional(),
        rows: rows().optional(),
        client_id: z.string().optional().openapi({ description: "To be given again on reconnecting" }),
        input_seq: z.int().min(0).optional().openapi({ description: "The last `seq` that was taken" }),
        input_offset: offset("Bytes of input that were taken").optional(),
      })
      .openapi({ description: "Always first; again, with the fields of the session, once one is attached" }),
    z.object({
      type: z.literal("output"),
      data: z.string().openapi({ example: "total 8\r\n" }),
      offset: offset("Of its first byte"),
      next_offset: offset("Of the byte after it: what to reconnect with"),
    }),
    z
      .object({
        type: z.literal("gap"),
        bytes: z.int().min(0),
        offset: offset("Of what comes next"),
        restore: z.string(),
      })
      .openapi({ description: "So many bytes can't be had any more" }),
    z
      .object({ type: z.literal("resize"), cols: cols(), rows: rows() })
      .openapi({ description: "The size that another client has given the terminal" }),
    z
      .object({ type: z.literal("input_ack"), seq: z.int().min(0), offset: offset("Bytes taken so far") })
      .openapi({ description: "Input has been written to the terminal; for clients that number it" }),
    z
      .object({ type: z.literal("exit"), code: z.int().openapi({ example: 0 }) })
      .openapi({ description: "The shell has ended (128+n: by signal n); then 1000" }),
    z.object({
      type: z.literal("info"),
      message: z.string().openapi({
        example: "Environment is still installing. Terminal will be available once installation completes.",
      }),
    }),
    statusUpdate,
    error,
    pong,
  ])
  .openapi("TerminalServerMessage", { example: { type: "output", data: "$ ", offset: 0, next_offset: 2 } });

export const LogClientMessage = z
  .union([ping, auth])
  .openapi("LogClientMessage", { example: { type: "ping" } });

export const LogServerMessage = z
  .union([
    z.object({
      type: z.literal("welcome"),
      message: z.string().openapi({ example: "Connected to my-python-env logs" }),
      environment_id: id(),
      offset: offset("Of the last line before those that are sent"),
    }),
    z.object({
      type: z.literal("installation_log"),
      environment_id: id(),
      data: z.string().openapi({ example: "Get:1 http://archive.ubuntu.com/ubuntu jammy InRelease\n" }),
      timestamp: time(),
      offset: offset("Of the line"),
    }),
    z.object({
      type: z.literal("installation_status"),
      environment_id: id(),
      status: z.enum(ENVIRONMENT_STATUSES),
      message: z.string().openapi({ example: "Installing system dependencies..." }),
    }),
    z.object({
      type: z.literal("installation_complete"),
      environment_id: id(),
      status: z.enum(ENVIRONMENT_STATUSES),
    }),
    z.object({
      type: z.literal("installation_error"),
      environment_id: id(),
      error: z.string().openapi({ example: "Failed to install package: connection timeout" }),
    }),
    z.object({
      type: z.literal("log"),
      timestamp: time(),
      level: z.enum(LOG_LEVELS),
      message: z.string().openapi({ example: "Application started on port 8080" }),
      source: z.enum(LOG_SOURCES),
      offset: offset("Of the line: what to reconnect with"),
    }),
    statusUpdate,
    error,
    pong,
  ])
  .openapi("LogServerMessage", { example: { type: "pong" } });

/** How both endpoints take their clients and let them go. */
export const SOCKET_RULES = `
**Who is there**: \`?token=\`, \`Authorization: Bearer\`, the subprotocol \`bearer.<token>\`, \`?ticket=\` of
\`POST /api/v1/ws/ticket\`, or a first message \`{"type":"auth","token":"…"}\` within 30 seconds. A browser's
\`Origin\` must be the server's own or a configured one.

**Refusal**: the socket is accepted, an \`error\` message says why, then it is closed with 1008 and the reason: token
invalid, too many connections, environment not found or not running. Other codes: 1000 normal, 1001 the server stops,
1009 too much was sent, 1011 internal, 1013 try again later.

**Limits**: connections per user and messages a minute per connection; a frame of at most 1 MiB. The server pings every
30 seconds and closes a connection from which nothing has come for 90.
`.trim();
