import type { MiddlewareHandler } from "hono";
import type { HttpEnv } from "./context.ts";
import { isSecure } from "./origin.ts";
import { setHeaders } from "./response.ts";

/** The reference's four but for HSTS, and what an API answer may do in a browser: nothing. */
const HEADERS = [
  ["X-Content-Type-Options", "nosniff"],
  ["X-Frame-Options", "DENY"],
  ["X-XSS-Protection", "1; mode=block"],
] as const;
const SECURE_HEADERS = [
  ...HEADERS,
  ["Strict-Transport-Security", "max-age=31536000; includeSubDomains"],
] as const;

interface SecurityOptions {
  publicUrl: URL | undefined;
  trustedProxies: number;
}

/** Sends the security headers, and who came over plain HTTP to an https `PUBLIC_URL` there. */
export function security({ publicUrl, trustedProxies }: SecurityOptions): MiddlewareHandler<HttpEnv> {
  const httpsOnly = publicUrl?.protocol === "https:" ? publicUrl : null;
  return async (c, next) => {
    const secure = isSecure(c, trustedProxies);
    // Probes come from the cluster's own network, without TLS and without following redirects.
    if (httpsOnly && !secure && !/^\/health(?:\/|$)/.test(c.req.path)) {
      c.res = new Response(null, { status: 308, headers: { Location: securely(httpsOnly, c.req.url) } });
    } else {
      await next();
    }
    setHeaders(c, secure ? SECURE_HEADERS : HEADERS);
  };
}

/** The same path and query at `publicUrl`; its host is the configured one, never the request's. */
function securely(publicUrl: URL, requestUrl: string): string {
  const { pathname, search } = new URL(requestUrl);
  return publicUrl.origin + publicUrl.pathname.replace(/\/$/, "") + pathname + search;
}
