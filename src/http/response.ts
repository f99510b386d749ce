import type { Context } from "hono";
import type { HttpEnv } from "./context.ts";

/** Sets headers on the answer that a handler has made. */
export function setHeaders(c: Context<HttpEnv>, headers: readonly (readonly [string, string])[]): void {
  try {
    for (const [name, value] of headers) c.res.headers.set(name, value);
  } catch {
    // The headers of an answer that came from fetch can't be changed.
    const changed = new Response(c.res.body, c.res);
    for (const [name, value] of headers) changed.headers.set(name, value);
    c.res = undefined;
    c.res = changed;
  }
}
