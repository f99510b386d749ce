/*
 * What is asked for, taken from a request's URL as text: what stands before the path is the Host header, which
 * may be any text at all.
 */

/** The path that routes are matched with: decoded as far as it can be, without a trailing slash. */
export function pathOf(request: Request): string {
  const target = targetOf(request.url);
  const query = target.indexOf("?");
  const path = query === -1 ? target : target.slice(0, query);
  const decoded = path.includes("%") ? decode(path) : path;
  return decoded.length > 1 && decoded.endsWith("/") ? decoded.slice(0, -1) : decoded;
}

/**
 * A request whose URL is one. HTTP/1.0 has no Host header, and Bun then gives the path alone, of a CONNECT only
 * the host; and with a Host header that is no host what it gives can't be parsed.
 */
export function withWholeUrl(request: Request): Request {
  const { url } = request;
  const [scheme] = /^https?(?=:\/\/)/.exec(url) ?? [];
  if (scheme !== undefined && URL.canParse(url)) return request;
  return new Request(`${scheme ?? "http"}://localhost${targetOf(url)}`, request);
}

/** Path and query; "/" where there is none. */
function targetOf(url: string): string {
  if (url.startsWith("/")) return url;
  const authority = url.indexOf("//");
  const start = authority === -1 ? -1 : url.indexOf("/", authority + 2);
  return start === -1 ? "/" : url.slice(start);
}

function decode(path: string): string {
  try {
    // An escaped slash or percent sign stays escaped: it is part of a name, not of the path.
    return decodeURI(path.replaceAll("%25", "%2525"));
  } catch {
    return path;
  }
}
