import { createHash } from "node:crypto";
import type { Context } from "hono";
import type { ContentfulStatusCode } from "hono/utils/http-status";
import type { HttpEnv } from "../http/context.ts";
import { escapeHtml } from "../mail/message.ts";

/*
 * The few pages that links in messages lead to. A link only shows a button, since mail scanners follow
 * links; nothing in a page runs or is loaded from anywhere.
 */

const STYLE =
  "body{font:16px/1.5 system-ui,sans-serif;margin:0;color-scheme:light dark}main{max-width:26rem;margin:15vh auto;padding:0 1.5rem}" +
  "h1{font-size:1.4rem}input,button{font:inherit;padding:.6rem .8rem;width:100%;box-sizing:border-box;border-radius:6px;border:1px solid #888}" +
  "button{margin-top:1rem;background:#1f4fd8;border-color:#1f4fd8;color:#fff;cursor:pointer}.fault{color:#c62828}";

const STYLE_HASH = createHash("sha256").update(STYLE).digest("base64");
const CSP = `default-src 'none'; style-src 'sha256-${STYLE_HASH}'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'`;

/** @param content HTML; whatever comes from outside has been escaped */
export function htmlPage(
  c: Context<HttpEnv>,
  { title, content }: { title: string; content: string },
  status: ContentfulStatusCode = 200,
): Response {
  const headers = {
    "Content-Security-Policy": CSP,
    // The address holds a token: it must be in no cache and no Referer.
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
  };
  const heading = `<h1>${escapeHtml(title)}</h1>`;
  return c.html(
    `<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>${escapeHtml(title)} · DevPocket</title><style>${STYLE}</style></head><body><main>${heading}${content}</main></body></html>`,
    status,
    headers,
  );
}

export function messageContent(message: string): string {
  return `<p>${escapeHtml(message)}</p>`;
}

export function verifyContent(token: string): string {
  return (
    "<p>Confirm that this email address is yours.</p>" +
    `<form method="post" action="verify-email"><input type="hidden" name="token" value="${escapeHtml(token)}">` +
    "<button>Verify email address</button></form>"
  );
}

export function resetContent(token: string, fault?: string): string {
  return (
    (fault === undefined ? "" : `<p class="fault" role="alert">${escapeHtml(fault)}</p>`) +
    `<form method="post" action="reset-password"><input type="hidden" name="token" value="${escapeHtml(token)}">` +
    '<label>New password<input type="password" name="new_password" required minlength="8" maxlength="128" autocomplete="new-password" autofocus></label>' +
    "<button>Set password</button></form>"
  );
}
