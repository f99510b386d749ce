import type { Context, MiddlewareHandler } from "hono";
import { AppError } from "../errors.ts";
import type { HttpEnv } from "./context.ts";

const MAX_BODY_BYTES = 1024 * 1024;
const JSON_TYPE = /^application\/(?:[\w.-]+\+)?json[\t ]*(?:;|$)/i;

/** Refuses a body that says it is over 1 MiB, whether or not the route reads one. Bun discards it as it comes. */
export const limitBody: MiddlewareHandler<HttpEnv> = (c, next) => {
  const declared = c.req.raw.headers.get("content-length");
  if (declared !== null && Number(declared) > MAX_BODY_BYTES) throw tooLarge();
  return next();
};

/**
 * Reads a route's JSON body for the validator that comes after it. Refused are a body without a
 * declared length as soon as it passes 1 MiB, one of another type, and one that is not JSON in well-formed
 * UTF-8.
 *
 * @param required whether a request without a body is refused; else it counts as `{}`
 */
export function readJson(required: boolean): MiddlewareHandler<HttpEnv> {
  return async (c, next) => {
    const bytes = await readBody(c);
    if (bytes.byteLength === 0) {
      if (required) throw invalidJson("A JSON body is required");
      provide(c, "{}");
      return next();
    }
    if (!JSON_TYPE.test(c.req.raw.headers.get("content-type") ?? "")) {
      throw new AppError("unsupported_media_type", "The body must be application/json");
    }
    const text = decode(bytes);
    // JSON can write characters that no column, file name or environment variable can hold.
    if (text.includes("\\u") && !isStorable(parse(text))) {
      throw invalidJson("The body holds a NUL character or half of a surrogate pair");
    }
    provide(c, text);
    return next();
  };
}

/** Reads a form within the same limit; its validator says what is wrong with it. */
export const readForm: MiddlewareHandler<HttpEnv> = async (c, next) => {
  const bytes = await readBody(c);
  Object.assign(c.req.bodyCache, { arrayBuffer: Promise.resolve(bytes) });
  return next();
};

/** Hono's validator takes the text from here instead of reading the request again. */
function provide(c: Context<HttpEnv>, text: string): void {
  Object.assign(c.req.bodyCache, { text: Promise.resolve(text) });
  // One spelling of what was understood: the validator's own idea of a media type is narrower.
  c.req.raw.headers.set("content-type", "application/json");
}

async function readBody(c: Context<HttpEnv>): Promise<Uint8Array> {
  try {
    const bytes = await readWithinLimit(c);
    c.set("actorIsStale", true);
    return bytes;
  } catch (error) {
    if (error instanceof AppError) throw error;
    // The client has hung up or fallen silent; nobody but the log will hear of it.
    throw new AppError("invalid", "The body was not sent to its end", { cause: error });
  }
}

async function readWithinLimit(c: Context<HttpEnv>): Promise<Uint8Array> {
  // A declared length was checked before, and the server holds clients to it.
  if (c.req.raw.headers.has("content-length")) return c.req.raw.bytes();
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of c.req.raw.body ?? []) {
    size += chunk.byteLength;
    if (size > MAX_BODY_BYTES) throw tooLarge();
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

function decode(bytes: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw invalidJson("The body is not UTF-8");
  }
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw invalidJson("The body is not valid JSON");
  }
}

/** Without recursion: a body can be nested deeper than the stack. */
function isStorable(root: unknown): boolean {
  const open: unknown[] = [root];
  while (open.length > 0) {
    const value = open.pop();
    if (typeof value === "string") {
      if (value.includes("\0") || !value.isWellFormed()) return false;
    } else if (typeof value === "object" && value !== null) {
      for (const [key, inner] of Object.entries(value)) open.push(key, inner);
    }
  }
  return true;
}

export function invalidJson(message: string): AppError {
  return new AppError("validation", "Request validation failed", {
    fields: [{ field: "body", message, code: "invalid_json" }],
  });
}

function tooLarge(): AppError {
  return new AppError("too_large", "The body is larger than 1 MiB");
}
