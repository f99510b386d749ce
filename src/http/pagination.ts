import { z } from "@hono/zod-openapi";
import type { Context } from "hono";
import type { HttpEnv } from "./context.ts";

const DEFAULT_LIMIT = 50;
const MAX_LIMIT = 200;
const MAX_OFFSET = 1_000_000_000;

/** Which part of a list is asked for. */
export interface Page {
  limit: number;
  offset: number;
}

/** The query of every list; a route with filters adds its own: `PageQuery.extend({ … })`. */
export const PageQuery = z.object({
  limit: wholeNumber(1, MAX_LIMIT, DEFAULT_LIMIT, "How many entries to answer with"),
  offset: wholeNumber(0, MAX_OFFSET, 0, "How many entries to skip"),
});

/** Documents what `setPageHeaders` sends: `200: { ...json(List, "…"), headers: PageHeaders }`. */
export const PageHeaders = {
  "X-Total-Count": {
    description: "How many entries the whole list has",
    schema: { type: "integer" as const, minimum: 0 },
  },
  Link: {
    description: "Pages of the list (RFC 8288): first, prev, next and last",
    schema: { type: "string" as const },
  },
};

/** Says on the answer how long the whole list is and where its other pages are. */
export function setPageHeaders(c: Context<HttpEnv>, page: Page, total: number): void {
  c.header("X-Total-Count", String(total));
  c.header("Link", linkHeader(new URL(c.req.url).searchParams, page, total));
}

/**
 * An RFC 8288 `Link` header of the pages around `page`. Targets are queries alone, relative to the request's
 * own address: that is right behind every proxy and below every path. The query's other parameters are kept.
 */
export function linkHeader(query: URLSearchParams, { limit, offset }: Page, total: number): string {
  const lastOffset = total === 0 ? 0 : Math.floor((total - 1) / limit) * limit;
  const offsets: [rel: string, offset: number][] = [["first", 0]];
  if (offset > 0) offsets.push(["prev", Math.min(Math.max(0, offset - limit), lastOffset)]);
  if (offset + limit < total) offsets.push(["next", offset + limit]);
  offsets.push(["last", lastOffset]);
  return offsets.map(([rel, at]) => `<${target(query, limit, at)}>; rel="${rel}"`).join(", ");
}

function target(query: URLSearchParams, limit: number, offset: number): string {
  const changed = new URLSearchParams(query);
  changed.set("limit", String(limit));
  changed.set("offset", String(offset));
  return `?${changed}`;
}

/** A decimal whole number in a query; `Number` alone would also take "", " 5", "1e2" and "0x10". */
export function wholeNumber(min: number, max: number, fallback: number, description: string) {
  return z
    .string()
    .regex(/^\d{1,10}$/, "Must be a whole number")
    .transform(Number)
    .pipe(z.int().min(min, `Must be at least ${min}`).max(max, `Must be at most ${max}`))
    .default(fallback)
    .openapi({ type: "integer", minimum: min, maximum: max, default: fallback, description });
}
