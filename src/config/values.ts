import { resolve } from "node:path";
import * as v from "valibot";

/* Values that are given as text, each with what to say of one that is wrong. */

export const text = v.pipe(v.string(), v.trim(), v.minLength(1, "is empty"));

/** As an absolute path. */
export const path = v.pipe(
  text,
  v.transform((value) => resolve(value)),
);

/** Items separated by commas, none of them empty. */
export const list = v.pipe(
  v.string(),
  v.transform((value) =>
    value
      .split(",")
      .map((item) => item.trim())
      .filter(Boolean),
  ),
);

export const port = v.pipe(
  v.string(),
  v.regex(/^\d{1,5}$/, "is not a number"),
  v.transform(Number),
  v.maxValue(65535, "is above 65535"),
);

export const onOff = v.pipe(
  v.picklist(["on", "off"], "must be on or off"),
  v.transform((value) => value === "on"),
);

export function whole(min: number, max: number) {
  return v.pipe(
    v.string(),
    v.regex(/^\d{1,9}$/, "is not a whole number"),
    v.transform(Number),
    v.minValue(min, `is below ${min}`),
    v.maxValue(max, `is above ${max}`),
  );
}

const DURATION_MS: Record<string, number> = { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** "90s", "10m", "2h", "30d" as milliseconds. */
export const duration = v.pipe(
  v.string(),
  v.regex(/^[1-9]\d{0,6}[smhd]$/, "is not a duration such as 90s, 10m, 2h or 30d"),
  v.transform((value) => Number(value.slice(0, -1)) * (DURATION_MS[value.slice(-1)] ?? 0)),
);

/** A duration, or "off": null. */
export const durationOrOff = v.union(
  [
    v.pipe(
      v.literal("off"),
      v.transform(() => null),
    ),
    duration,
  ],
  "is neither off nor a duration such as 90s, 10m, 2h or 30d",
);

/** @param protocols those allowed, as "https:" */
export function url(protocols: string[]) {
  return v.pipe(
    text,
    v.check((value) => URL.canParse(value), "is not a URL"),
    v.transform((value) => new URL(value)),
    v.check((value) => protocols.includes(value.protocol), `must begin with ${protocols.join("// or ")}//`),
  );
}

function isDecodable(text: string): boolean {
  try {
    decodeURIComponent(text);
    return true;
  } catch {
    return false;
  }
}

/** A user or password that can't be decoded would be sent as it is, and refused with every message. */
export const mailServer = v.pipe(
  url(["smtp:", "smtps:"]),
  v.check(({ hostname }) => hostname !== "", "names no host"),
  v.check(
    ({ username, password }) => isDecodable(username) && isDecodable(password),
    "has a user or password that can't be percent-decoded (% itself is %25)",
  ),
);

/** Origins of web pages, separated by commas. */
export const origins = v.pipe(
  list,
  v.check((values) => !values.includes("*"), "may not be *, since credentials are allowed; list the origins"),
  v.check(
    (values) => values.every((value) => URL.canParse(value) && new URL(value).origin === value),
    "holds something that is not an origin (scheme and host, no path)",
  ),
);

/** 256-bit keys in base64 or hex, separated by commas. */
export const keys = v.pipe(
  list,
  v.check((values) => values.length > 0, "is empty"),
  v.transform((values) =>
    values.map((value) => Buffer.from(value, /^[0-9a-f]{64}$/i.test(value) ? "hex" : "base64")),
  ),
  v.check((values) => values.every((key) => key.length === 32), "is not a 32-byte key in base64 or hex"),
);

export const email = v.pipe(text, v.email("is not an email address"));

/**
 * Who mail comes from: an address, or a display name and one in angle brackets (RFC 5322, 3.4). A name with
 * punctuation that would part addresses stands in quotes.
 */
export const sender = v.pipe(
  text,
  v.check((value) => {
    const [, bare, bracketed] =
      /^(?:([^<>"]+)|(?:"[^"\\\p{Cc}]*" *|[^<>"()[\],;:@\\\p{Cc}]*)<([^<>]+)>)$/u.exec(value) ?? [];
    return isMailAddress(bare ?? bracketed ?? "");
  }, "is not one address, with or without a name before it"),
);

/** Unlike what people register with, also one of a host without a dot: `devpocket@localhost`. */
function isMailAddress(text: string): boolean {
  const [local = "", domain = "", ...more] = text.split("@");
  const isPlain = (part: string) => /^[^\s<>"()[\],;:\\\p{Cc}]+$/u.test(part);
  return more.length === 0 && isPlain(local) && domain.split(".").every(isPlain);
}
