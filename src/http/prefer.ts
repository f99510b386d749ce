const MAX_WAIT_SECONDS = 60;

/** Documents what `waitApplied` is sent in. */
export const PreferenceHeaders = {
  "Preference-Applied": {
    description: "The wait that was honoured, `wait=N` (RFC 7240)",
    schema: { type: "string" as const },
  },
};

/**
 * How long a client wants to wait for the end of an asynchronous verb, by `Prefer: wait=N` (RFC 7240,
 * section 4.3), in whole seconds; more than 60 counts as 60. Undefined when it does not say so, or not in a
 * way that can be understood: preferences are not errors. The first `wait` counts (section 2).
 */
export function preferredWaitSeconds(header: string | undefined): number | undefined {
  if (!header) return undefined;
  for (const preference of splitUnquoted(header, ",")) {
    const [pair = ""] = splitUnquoted(preference, ";");
    const [name = "", ...rest] = pair.split("=");
    if (name.trim().toLowerCase() === "wait") return seconds(unquote(rest.join("=").trim()));
  }
  return undefined;
}

/** The `Preference-Applied` header for a wait that was honoured. */
export function waitApplied(waitSeconds: number): string {
  return `wait=${waitSeconds}`;
}

function seconds(text: string): number | undefined {
  return /^\d+$/.test(text) ? Math.min(Number(text), MAX_WAIT_SECONDS) : undefined;
}

function unquote(word: string): string {
  return /^".*"$/.test(word) ? word.slice(1, -1).replace(/\\(.)/g, "$1") : word;
}

/** Splits at `separator` outside of quoted strings (RFC 9110, section 5.6.4), in linear time. */
function splitUnquoted(text: string, separator: string): string[] {
  const parts: string[] = [];
  let begin = 0;
  let quoted = false;
  for (let i = 0; i < text.length; i++) {
    const char = text[i];
    if (quoted && char === "\\") i++;
    else if (char === '"') quoted = !quoted;
    else if (!quoted && char === separator) {
      parts.push(text.slice(begin, i));
      begin = i + 1;
    }
  }
  parts.push(text.slice(begin));
  return parts;
}
