/* The public API as `devpocket connect` uses it. */

/** What was refused or could not be reached: one line for the person at the terminal. */
export class ConnectError extends Error {
  override readonly name = "ConnectError";
  /** Of the answer; undefined when there was none. */
  readonly status: number | undefined;

  constructor(message: string, status?: number) {
    super(message);
    this.status = status;
  }
}

export interface Api {
  url: string;
  /** An access token that is good for a while yet. */
  token(): Promise<string>;
  /** @throws ConnectError when it is refused or nobody answers */
  call(method: string, path: string, body?: unknown): Promise<unknown>;
}

/** Renewed this long before it ends: a connection that is being made still needs it. */
const RENEW_BEFORE_MS = 60_000;

/** @throws ConnectError */
export async function signIn(url: string, name: string, password: string): Promise<Api> {
  let tokens = await grant("/api/v1/auth/login", { username_or_email: name, password });

  async function grant(path: string, body: unknown) {
    const answer = await request(url, "", "POST", path, body);
    const lifeMs = Number(field(answer, "expires_in")) * 1000;
    return {
      access: field(answer, "access_token"),
      refresh: field(answer, "refresh_token"),
      renewAtMs: Date.now() + lifeMs - RENEW_BEFORE_MS,
    };
  }

  const token = async () => {
    if (Date.now() >= tokens.renewAtMs)
      tokens = await grant("/api/v1/auth/refresh", { refresh_token: tokens.refresh });
    return tokens.access;
  };
  return {
    url,
    token,
    call: async (method, path, body) => request(url, await token(), method, path, body),
  };
}

async function request(
  url: string,
  token: string,
  method: string,
  path: string,
  body: unknown,
): Promise<unknown> {
  const response = await fetch(url + path, {
    method,
    headers: {
      ...(token ? { Authorization: `Bearer ${token}` } : {}),
      ...(body === undefined ? {} : { "Content-Type": "application/json" }),
    },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  }).catch((error: unknown) => {
    const reason = error instanceof Error ? `: ${error.message}` : "";
    throw new ConnectError(`no DevPocket answers at ${url}${reason}`);
  });
  const answer: unknown = await response.json().catch(() => ({}));
  if (response.ok) return answer;
  throw new ConnectError(explained(answer, `${method} ${path}: ${response.status}`), response.status);
}

/** The answer's words, and what they say of single fields. */
function explained(answer: unknown, fallback: string): string {
  const faults = items(answer, "errors").map((fault) => field(fault, "message", ""));
  return [field(answer, "detail", fallback), ...faults.filter(Boolean)].join(": ");
}

function items(answer: unknown, name: string): unknown[] {
  const value = entry(answer, name);
  return Array.isArray(value) ? value : [];
}

/** A field of an answer as text. @throws ConnectError where there is neither it nor a fallback */
export function field(answer: unknown, name: string, fallback?: string): string {
  const value = entry(answer, name);
  if (value !== undefined && value !== null) return String(value);
  if (fallback !== undefined) return fallback;
  throw new ConnectError(`the server's answer has no ${name}`);
}

function entry(answer: unknown, name: string): unknown {
  if (typeof answer !== "object" || answer === null) return undefined;
  return Object.entries(answer).find(([key]) => key === name)?.[1];
}
