import { promisify } from "node:util";
import { gzip } from "node:zlib";
import type { Context } from "hono";
import styleFile from "swagger-ui-dist/swagger-ui.css" with { type: "file" };
import scriptFile from "swagger-ui-dist/swagger-ui-bundle.js" with { type: "file" };
import type { HttpEnv } from "./context.ts";
import type { OpenApiDocument } from "./openapi.ts";
import { newRouter, type Router } from "./router.ts";

/** Swagger UI sets styles from its script, which counts as the script's doing, and has images in its style sheet. */
const CONTENT_SECURITY_POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self' data:",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join("; ");

/**
 * On a phone an operation is as wide as the screen: what is wider in it pans by itself, and not the page. No
 * answer of ours has links, whose column is the widest for nothing.
 */
const STYLE = `
.swagger-ui .opblock-body .response-col_links { display: none; }
.swagger-ui .opblock-body pre { overflow-x: auto; }
@media (max-width: 640px) {
  .swagger-ui .opblock-body .responses-inner,
  .swagger-ui .opblock-body .table-container,
  .swagger-ui .opblock-body .headers-wrapper { overflow-x: auto; }
  .swagger-ui .opblock-body .responses-table { table-layout: fixed; }
  .swagger-ui .opblock-body .responses-table .response-col_status { width: 4em; }
  .swagger-ui .opblock-body .responses-table .response-col_description { width: auto; }
}
`;

/** Off the event loop: the script takes tens of milliseconds. */
const compress = promisify(gzip);

interface Asset {
  type: string;
  load: () => string | Promise<ArrayBuffer>;
}

interface Loaded {
  type: string;
  plain: Uint8Array<ArrayBuffer>;
  gzipped: Uint8Array<ArrayBuffer>;
  etag: string;
}

interface DocsOptions {
  /** Path of the server at its public address, "" or "/pocket". */
  basePath: string;
  document: () => OpenApiDocument;
}

/** `/openapi.json` and, as a page to read and try it, `/docs`: from the server itself, with no other host. */
export function docsRoutes({ basePath, document }: DocsOptions): Router {
  const router = newRouter();
  // Where the start's own line leads whoever clicks on it.
  router.get("/", (c) => c.redirect(`${basePath}/docs`));
  const assets: Record<string, Asset> = {
    "/openapi.json": { type: "application/json", load: () => JSON.stringify(document()) },
    "/docs": { type: "text/html; charset=utf-8", load: () => page(basePath) },
    "/docs/start.js": { type: "text/javascript; charset=utf-8", load: () => startScript(basePath) },
    "/docs/page.css": { type: "text/css; charset=utf-8", load: () => STYLE },
    "/docs/swagger-ui.js": {
      type: "text/javascript; charset=utf-8",
      load: () => Bun.file(scriptFile).arrayBuffer(),
    },
    "/docs/swagger-ui.css": {
      type: "text/css; charset=utf-8",
      load: () => Bun.file(styleFile).arrayBuffer(),
    },
  };
  for (const [path, asset] of Object.entries(assets)) {
    let loaded: Promise<Loaded> | undefined;
    router.get(path, async (c) => {
      loaded ??= load(asset);
      return answer(c, await loaded);
    });
  }
  return router;
}

async function load({ type, load }: Asset): Promise<Loaded> {
  const content = await load();
  const plain = typeof content === "string" ? new TextEncoder().encode(content) : new Uint8Array(content);
  return { type, plain, gzipped: new Uint8Array(await compress(plain)), etag: Bun.hash(plain).toString(36) };
}

function answer(c: Context<HttpEnv>, { type, plain, gzipped, etag }: Loaded): Response {
  const zip = /\bgzip\b(?!\s*;\s*q=0(?:\.0*)?\s*(?:,|$))/i.test(c.req.header("accept-encoding") ?? "");
  const tag = `"${etag}${zip ? "-gzip" : ""}"`;
  // `no-cache` is "ask first": a new version of the server is seen at once.
  const headers = {
    "Content-Type": type,
    "Cache-Control": "no-cache",
    ETag: tag,
    Vary: "Accept-Encoding",
    ...(type.startsWith("text/html") ? { "Content-Security-Policy": CONTENT_SECURITY_POLICY } : {}),
    ...(zip ? { "Content-Encoding": "gzip" } : {}),
  };
  if (isFresh(c.req.header("if-none-match"), tag)) return c.body(null, 304, headers);
  return c.body(zip ? gzipped : plain, 200, headers);
}

/** RFC 9110, section 13.1.2: compared weakly. */
function isFresh(ifNoneMatch: string | undefined, tag: string): boolean {
  if (ifNoneMatch === undefined) return false;
  const known = ifNoneMatch.split(",").map((entry) => entry.trim().replace(/^W\//, ""));
  return known.includes(tag) || known.includes("*");
}

function page(basePath: string): string {
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>DevPocket API</title>
<link rel="stylesheet" href="${basePath}/docs/swagger-ui.css">
<link rel="stylesheet" href="${basePath}/docs/page.css">
<link rel="icon" href="data:,">
</head>
<body>
<div id="reference"></div>
<noscript>The interactive reference needs JavaScript. The document itself is at ${basePath}/openapi.json.</noscript>
<script src="${basePath}/docs/swagger-ui.js"></script>
<script src="${basePath}/docs/start.js"></script>
</body>
</html>
`;
}

function startScript(basePath: string): string {
  return `SwaggerUIBundle({
  url: ${JSON.stringify(`${basePath}/openapi.json`)},
  dom_id: "#reference",
  deepLinking: true,
  displayRequestDuration: true,
  tryItOutEnabled: true,
  validatorUrl: null,
});
`;
}
