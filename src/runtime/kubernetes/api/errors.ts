import { RuntimeRejected, RuntimeUnreachable } from "../../runtime.ts";

/** The part of a Kubernetes Status object that decides on anything. */
export interface KubeStatus {
  code: number;
  reason: string;
  message: string;
  /** `details.causes`: reason and message of each. */
  causes: { reason: string; message: string }[];
}

/** The API server has answered with something other than success. */
export class KubeStatusError extends Error implements KubeStatus {
  override readonly name = "KubeStatusError";
  readonly code: number;
  readonly reason: string;
  readonly causes: { reason: string; message: string }[];

  constructor(status: KubeStatus) {
    super(status.message);
    this.code = status.code;
    this.reason = status.reason;
    this.causes = status.causes;
  }
}

interface WireStatus {
  kind?: string;
  reason?: string;
  message?: string;
  details?: { causes?: { reason?: string; message?: string }[] };
}

/** Reads the body of a failed answer: a Status object, or whatever a proxy on the way has written. */
export function statusError(code: number, body: string): KubeStatusError {
  const status = parseStatus(body);
  return new KubeStatusError({
    code,
    reason: status?.reason ?? "",
    message: status?.message || `the API server answered with status ${code}`,
    causes: (status?.details?.causes ?? []).map((cause) => ({
      reason: cause.reason ?? "",
      message: cause.message ?? "",
    })),
  });
}

function parseStatus(body: string): WireStatus | undefined {
  try {
    const value: WireStatus | null = JSON.parse(body);
    if (value?.kind === "Status") return value;
  } catch {}
  return undefined;
}

export function isStatus(error: unknown, code: number): error is KubeStatusError {
  return error instanceof KubeStatusError && error.code === code;
}

/** A failure on the way, before the API server could answer, in words without addresses or internals. */
export function unreachable(error: unknown): RuntimeUnreachable {
  if (error instanceof RuntimeUnreachable) return error;
  return new RuntimeUnreachable(`The cluster can't be reached: ${transportWords(error)}`, { cause: error });
}

const TRANSPORT_WORDS: [RegExp, string][] = [
  [/^SyntaxError/, "what answers does not speak JSON"],
  [/TimeoutError|timed? ?out/i, "no answer in time"],
  [/ConnectionRefused|ECONNREFUSED|Unable to connect/i, "connection refused"],
  [/ENOTFOUND|EAI_AGAIN|DNS|getaddrinfo/i, "its name can't be resolved"],
  [/CERT|certificate|SSL|TLS/i, "its TLS certificate is not trusted or the handshake failed"],
  [/ECONNRESET|EPIPE|socket|closed/i, "the connection was cut"],
];

function transportWords(error: unknown): string {
  const code = error instanceof Error && "code" in error ? String(error.code) : "";
  const text = error instanceof Error ? `${error.name} ${code} ${error.message}` : String(error);
  return TRANSPORT_WORDS.find(([pattern]) => pattern.test(text))?.[1] ?? "the connection failed";
}

/**
 * What a call to the cluster means to a caller of the runtime: RuntimeUnreachable where asking again may
 * help, RuntimeRejected where it will not. Errors of other kinds are returned as they are.
 */
export function asRuntimeError(error: unknown): unknown {
  if (!(error instanceof KubeStatusError)) return error;
  if (error.code === 401) {
    return new RuntimeUnreachable("The cluster does not accept DevPocket's credentials", { cause: error });
  }
  if (error.code >= 500 || [404, 408, 409, 410, 429].includes(error.code)) {
    return new RuntimeUnreachable(`The cluster can't do that now: ${error.message}`, { cause: error });
  }
  if (isNamespaceEnding(error)) {
    return new RuntimeRejected("ending", "Waiting for what was deleted before to be gone", { cause: error });
  }
  if (isQuotaExceeded(error.message)) {
    return new RuntimeRejected("quota", quotaWords(error.message), { cause: error });
  }
  return new RuntimeRejected("rejected", `The cluster refuses: ${error.message}`, { cause: error });
}

/** For calls that only read: a refusal says something about our rights, nothing about the environment. */
export function asReadError(error: unknown): unknown {
  if (error instanceof KubeStatusError && error.code >= 400 && error.code < 500 && error.code !== 401) {
    return new RuntimeUnreachable(`The cluster does not answer DevPocket: ${error.message}`, {
      cause: error,
    });
  }
  return asRuntimeError(error);
}

function isNamespaceEnding(error: KubeStatusError): boolean {
  return (
    error.causes.some((cause) => cause.reason === "NamespaceTerminating") ||
    /because it is being terminated/.test(error.message)
  );
}

export function isQuotaExceeded(message: string): boolean {
  return /exceeded quota/.test(message);
}

const QUOTA_NAMES: Record<string, string> = {
  "limits.cpu": "CPU",
  "limits.memory": "memory",
  "requests.storage": "storage",
  persistentvolumeclaims: "environments",
};

/**
 * The quota admission's sentence ("exceeded quota: q, requested: limits.cpu=1,…, used: …, limited: …") in
 * words for the owner.
 */
export function quotaWords(message: string): string {
  const part = (name: string) => {
    const text = new RegExp(`${name}: ((?:[\\w./-]+=[^,\\s]+,?)+)`).exec(message)?.[1] ?? "";
    return new Map(text.split(",").map((pair) => [pair.split("=")[0] ?? "", pair.split("=")[1] ?? ""]));
  };
  const requested = part("requested");
  const used = part("used");
  const refused = [...part("limited")]
    .filter(([name]) => name !== "")
    .map(([name, limit]) => {
      const what = QUOTA_NAMES[name] ?? name;
      return `${what}: ${requested.get(name)} asked for, ${used.get(name)} of ${limit} in use`;
    });
  return refused.length === 0 ? "Quota exceeded" : `Quota exceeded (${refused.join("; ")})`;
}
