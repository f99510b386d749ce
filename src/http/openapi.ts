import { OpenAPIHono } from "@hono/zod-openapi";
import { ErrorBody, RateLimitErrorBody } from "./errors.ts";
import { json, type Router } from "./router.ts";

export type OpenApiDocument = ReturnType<OpenAPIHono["getOpenAPI31Document"]>;

type Definition = OpenAPIHono["openAPIRegistry"]["definitions"][number];
type Route = Extract<Definition, { type: "route" }>["route"];
type Responses = Route["responses"];

interface DocumentOptions {
  version: string;
  publicUrl: URL | undefined;
}

const DESCRIPTION = `
DevPocket gives every developer a cloud development environment they can reach from any device.

Sign in with \`POST /api/v1/auth/login\` and send the access token as \`Authorization: Bearer …\`. Times are
ISO 8601 in UTC; ids are opaque. Paths work with and without a trailing slash. Unknown fields of a body are
ignored; a body may have 1 MiB.

Lists are JSON arrays, newest first. \`limit\` and \`offset\` choose a page; \`X-Total-Count\` and \`Link\`
(RFC 8288) say what else there is.

Creating, starting, stopping, restarting, recovering and deleting an environment is answered at once;
\`Prefer: wait=N\` (RFC 7240, at most 60 seconds) holds the answer until it has settled.

Every error has the same shape. A path that is not there is answered 404, a method that it does not allow 405
with \`Allow\`. Every answer carries \`X-Request-Id\`; one that the request brings is kept. Every answer has
\`X-Content-Type-Options: nosniff\`, \`X-Frame-Options: DENY\`, \`X-XSS-Protection: 1; mode=block\` and, over HTTPS,
\`Strict-Transport-Security\`. While the server starts, all but \`/health\` and \`/health/live\` is answered 503 with
\`Retry-After\`. Where the server's public address is https, plain HTTP is redirected there (308).

Terminals and logs are WebSockets; their messages are the schemas \`TerminalClientMessage\`,
\`TerminalServerMessage\`, \`LogClientMessage\` and \`LogServerMessage\`.
`.trim();

const TAGS = {
  Authentication: "Accounts, sign-in and tokens",
  Users: "The signed-in user, sessions, and administration of accounts",
  Environments: "Development environments and what is done with them",
  Templates: "What environments are made from",
  Clusters: "Where environments run",
  Terminals: "Terminal sessions of an environment",
  WebSockets: "Terminals and live logs, and tickets for them",
  Pages: "What links in messages lead to",
  Audit: "Who did what, from where",
  Health: "Whether the server answers, and what it offers",
};

const text = { type: "string" as const };
const whole = { type: "integer" as const, minimum: 0 };

/** Headers of many answers; an answer refers to them by name. */
const HEADERS = {
  "X-Request-Id": { description: "The request's id, also in the server's log", schema: text },
  "X-RateLimit-Limit": { description: "Requests allowed in a minute", schema: whole },
  "X-RateLimit-Remaining": { description: "How many of them are left", schema: whole },
  "X-RateLimit-Reset": { description: "When the next one comes free, in epoch seconds", schema: whole },
  "Retry-After": { description: "Seconds until it may be tried again", schema: whole },
  "WWW-Authenticate": { description: "The scheme that is asked for (RFC 6750)", schema: text },
};
type HeaderName = keyof typeof HEADERS;

/** Status of an upgrade: no answer of ours, and not counted by the rate limits. */
const SWITCHING_PROTOCOLS = "101";

const RATE_LIMIT_HEADERS: HeaderName[] = ["X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"];

/** The OpenAPI document of these routers' routes: what validates them is what is shown. */
export function openApiDocument(
  routers: readonly Router[],
  { version, publicUrl }: DocumentOptions,
): OpenApiDocument {
  const app = new OpenAPIHono();
  for (const router of routers) app.route("/", router);
  const registry = app.openAPIRegistry;
  registry.registerComponent("securitySchemes", "bearerAuth", {
    type: "http",
    scheme: "bearer",
    bearerFormat: "JWT",
    description: "The `access_token` of a sign-in",
  });
  for (const [name, header] of Object.entries(HEADERS)) registry.registerComponent("headers", name, header);
  const used = new Set<string>();
  for (const definition of registry.definitions) {
    if (definition.type !== "route") continue;
    for (const tag of definition.route.tags ?? []) used.add(tag);
    definition.route = { ...definition.route, responses: withCommon(definition.route) };
  }
  return app.getOpenAPI31Document({
    openapi: "3.1.0",
    info: {
      title: "DevPocket API",
      version,
      description: DESCRIPTION,
      license: { name: "MIT", url: "https://opensource.org/license/mit" },
    },
    servers: [
      { url: "/", description: "The server that this document came from" },
      ...(publicUrl ? [{ url: publicUrl.href.replace(/\/$/, "") }] : []),
    ],
    tags: Object.entries(TAGS)
      .filter(([name]) => used.has(name))
      .map(([name, description]) => ({ name, description })),
  });
}

/** A route's own answers, and those that every request may get before it comes to its route. */
function withCommon(route: Route): Responses {
  const inApi = route.path.startsWith("/api/v1/");
  // Who may not have a WebSocket is told so through it, and pages take whatever a link holds.
  const isSocket = SWITCHING_PROTOCOLS in route.responses;
  const needsToken = route.security?.length && route.security.every((way) => Object.keys(way).length > 0);
  const misfit = { 422: problem("The request does not fit its schema") };
  const common: Responses = {
    ...(needsToken ? { 401: problem("No token, or one that is not or no longer valid") } : {}),
    ...(route.request?.body
      ? {
          413: problem("The body is larger than 1 MiB"),
          415: problem("The body is of another type"),
          ...misfit,
        }
      : {}),
    ...(route.request?.query && inApi && !isSocket ? misfit : {}),
    500: problem("An unexpected error; the log has it under the request's id"),
  };
  const isLimited = inApi || 429 in route.responses;
  const limited = { 429: json(RateLimitErrorBody, "Too many requests") };
  const all: Responses = { ...common, ...route.responses, ...(isLimited ? limited : {}) };
  return Object.fromEntries(
    Object.entries(all).map(([status, response]) => [status, withHeaders(status, response, inApi)]),
  );
}

function problem(description: string): Responses[string] {
  return json(ErrorBody, description);
}

function withHeaders(status: string, response: Responses[string], inApi: boolean): Responses[string] {
  if ("$ref" in response) return response;
  const names: HeaderName[] = [
    "X-Request-Id",
    ...((inApi && status !== SWITCHING_PROTOCOLS) || status === "429" ? RATE_LIMIT_HEADERS : []),
    ...(status === "401" ? (["WWW-Authenticate"] as const) : []),
    ...(status === "429" ? (["Retry-After"] as const) : []),
  ];
  const references = names.map((name) => [name, { $ref: `#/components/headers/${name}` }] as const);
  return { ...response, headers: { ...Object.fromEntries(references), ...response.headers } };
}
