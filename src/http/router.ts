import { OpenAPIHono, type z } from "@hono/zod-openapi";
import type { HttpEnv } from "./context.ts";
import { ErrorBody, validationError } from "./errors.ts";

/** A router whose routes are validated by, and documented from, their schemas. */
export function newRouter(): OpenAPIHono<HttpEnv> {
  return new OpenAPIHono<HttpEnv>({
    strict: false,
    defaultHook: (result) => {
      if (!result.success) throw validationError(result.error);
    },
  });
}

/** Documents the error answers of a route: `...errors({ 404: "No such environment" })`. */
export function errors<const S extends number>(descriptions: Record<S, string>) {
  const content = { "application/json": { schema: ErrorBody } };
  return Object.fromEntries(
    Object.entries(descriptions).map(([status, description]) => [
      status,
      { description: String(description), content },
    ]),
  );
}

/** A JSON answer of a route. */
export function json<T extends z.ZodType>(schema: T, description: string) {
  return { description, content: { "application/json": { schema } } };
}

/** A JSON body of a request. */
export function jsonBody<T extends z.ZodType>(schema: T) {
  return { body: { required: true, content: { "application/json": { schema } } } };
}

/** Security requirement of routes that need an access token. */
export const bearer = [{ bearerAuth: [] }];
