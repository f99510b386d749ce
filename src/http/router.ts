import { OpenAPIHono, z } from "@hono/zod-openapi";
import { readForm, readJson } from "./body.ts";
import type { HttpEnv } from "./context.ts";
import { ErrorBody } from "./errors.ts";
import { validationError } from "./validation.ts";

/** A router whose routes are validated by, and documented from, their schemas. */
export type Router = OpenAPIHono<HttpEnv>;

/** Routes carry their whole path: `createRoute({ path: "/api/v1/environments/{id}", … })`. */
export function newRouter(): Router {
  const router = new OpenAPIHono<HttpEnv>({
    strict: false,
    defaultHook: (result) => {
      // Of a failed one, the validator's hook is given the input as `data`, though its type has none.
      if (!result.success) throw validationError(result.error, "data" in result ? result.data : undefined);
    },
  });
  const { openapi } = router;
  router.openapi = (route, handler, hook) => {
    const body = route.request?.body;
    if (!body) return openapi(route, handler, hook);
    const reader = body.content["application/json"] ? readJson(body.required ?? false) : readForm;
    const guards = [route.middleware ?? []].flat();
    // Guards before the body, which a stranger shall not make us read, and after it: a client that holds its
    // last bytes back must not act with rights that were taken away meanwhile.
    return openapi({ ...route, middleware: [...guards, reader, ...guards] }, handler, hook);
  };
  return router;
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

/** Of an answer that only says what was done. */
export const Message = z.object({ message: z.string() }).openapi("Message");

/** A JSON body of a request. */
export function jsonBody<T extends z.ZodType>(schema: T) {
  return { body: { required: true, content: { "application/json": { schema } } } };
}

/** Security requirement of routes that need an access token. */
export const bearer = [{ bearerAuth: [] }];
