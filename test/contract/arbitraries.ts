import fc from "fast-check";
import type { ApiDocument, Operation, Schema } from "./document.ts";

/** A request as it goes over the wire; what it was made from can be shrunk. */
export interface FuzzRequest {
  /** "POST /api/v1/auth/login" */
  operation: string;
  method: string;
  path: string;
  query: string;
  headers: Record<string, string>;
  body: string | Uint8Array<ArrayBuffer> | undefined;
  /** Path or method are another's: a 404 or 405 needs no mention in the document. */
  isElsewhere: boolean;
}

type Word = fc.Arbitrary<string>;

/** Texts that have broken servers before. */
const nasty = fc.constantFrom(
  "",
  " ",
  "\0",
  "\ud800",
  "%00",
  "../../etc/passwd",
  "' OR 1=1 --",
  '"; DROP TABLE users; --',
  "__proto__",
  "constructor",
  "toString",
  "null",
  "undefined",
  "NaN",
  "-0",
  "1e309",
  "9".repeat(40),
  "0x10",
  "ﬁ".repeat(300),
  "\u202e\u200b\ufeff",
  "💥".repeat(100),
  "a".repeat(70_000),
  "{{7*7}}",
  "$(id)",
  "<script>alert(1)</script>",
  "2024-13-45T99:99:99Z",
  "http://[::1",
  "file:///etc/passwd",
);

const anyText = fc.oneof(
  { weight: 2, arbitrary: nasty },
  fc.string({ unit: "binary", maxLength: 60 }),
  fc.string(),
);

/** The same in short: a head of 16 KiB, URL and headers, is refused by Bun's server with 431, before ours. */
const MAX_CHARACTERS = 150;
const anyName = anyText.map((text) => text.slice(0, MAX_CHARACTERS).toWellFormed());

/** Any JSON value, the nasty ones more often. */
const anyJson: fc.Arbitrary<unknown> = fc.oneof(
  anyText,
  fc.jsonValue({ maxDepth: 3 }),
  fc.constantFrom<unknown>(null, true, -1, 0, 1.5, 1e308, Number.MAX_SAFE_INTEGER + 1, [], {}, [[]]),
  fc.constant(nested(3000)),
);

function nested(depth: number): unknown {
  let value: unknown = 1;
  for (let n = 0; n < depth; n++) value = [value];
  return value;
}

/** Values that fit a schema of the document. */
export function valuesOf(document: ApiDocument, schema: Schema): fc.Arbitrary<unknown> {
  return valuesOfClosed(document.closed(schema));
}

function valuesOfClosed(schema: Schema): fc.Arbitrary<unknown> {
  const types = [schema.type ?? []].flat();
  const shown = schema.example === undefined ? [] : [fc.constant(schema.example)];
  const options: fc.Arbitrary<unknown>[] = [...shown];
  if (types.includes("null")) options.push(fc.constant(null));
  if (schema.enum) options.push(fc.constantFrom(...schema.enum));
  else if (schema.anyOf) options.push(...schema.anyOf.map(valuesOfClosed));
  else if (schema.properties) options.push(objectsOf(schema.properties, schema.required ?? []));
  else if (types.includes("object")) {
    const values = typeof schema.additionalProperties === "object" ? schema.additionalProperties : {};
    options.push(fc.dictionary(fc.stringMatching(/^[A-Z_]{1,8}$/), valuesOfClosed(values), { maxKeys: 5 }));
  } else if (schema.items) options.push(fc.array(valuesOfClosed(schema.items), { maxLength: 4 }));
  else if (types.includes("boolean")) options.push(fc.boolean());
  else if (types.includes("integer")) {
    options.push(
      fc.integer({ min: schema.minimum ?? 0, max: Math.min(schema.maximum ?? 1000, 2 ** 31 - 1) }),
    );
  } else if (types.includes("number")) options.push(fc.double({ noNaN: true, noDefaultInfinity: true }));
  else options.push(textsOf(schema));
  return fc.oneof(...options);
}

function objectsOf(properties: Record<string, Schema>, required: string[]): fc.Arbitrary<unknown> {
  const fields = Object.fromEntries(
    Object.entries(properties).map(([name, property]) => [name, valuesOfClosed(property)]),
  );
  return fc.record(fields, { requiredKeys: required });
}

function textsOf({ format, pattern, minLength = 0, maxLength = 40 }: Schema): Word {
  if (format === "email") return fc.emailAddress();
  if (format === "uri") return fc.webUrl();
  if (format === "date-time") {
    return fc
      .date({ noInvalidDate: true, min: new Date(0), max: new Date(4e12) })
      .map((date) => date.toISOString());
  }
  if (pattern) return fc.stringMatching(new RegExp(pattern));
  return fc.string({ minLength, maxLength: Math.min(maxLength, 200) });
}

/** A value with one thing wrong: somewhere in it another value, a field less, or one more. */
function spoiled(value: unknown): fc.Arbitrary<unknown> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return anyJson;
  const entries = Object.entries(value);
  if (entries.length === 0) return anyJson;
  return fc.tuple(fc.constantFrom(...entries), anyText, fc.nat(3)).chain(([[name, inner], key, how]) => {
    const { [name]: _, ...rest } = { ...value } as Record<string, unknown>;
    if (how === 0) return fc.constant(rest);
    if (how === 1) return anyJson.map((extra) => ({ ...value, [key]: extra }));
    return (how === 2 ? anyJson : spoiled(inner)).map((other) => ({ ...rest, [name]: other }));
  });
}

interface Encoded {
  body: FuzzRequest["body"];
  type: string | undefined;
}

function bodiesOf(document: ApiDocument, { body, requestBody }: Operation): fc.Arbitrary<Encoded> {
  const as = (type: string) => (text: string | Uint8Array<ArrayBuffer>) => ({ body: text, type });
  const garbage = fc.oneof(
    fc.uint8Array({ maxLength: 200 }).map((bytes) => as("application/json")(new Uint8Array(bytes))),
    anyText.map(as("application/json")),
    anyText.map(as("application/x-www-form-urlencoded")),
    anyText.map(as("multipart/form-data; boundary=x")),
    fc
      .tuple(anyText, fc.constantFrom("text/plain", "application/xml", "x/y; charset=\u00ff"))
      .map(([text, type]) => as(type)(text)),
    fc.constant({ body: undefined, type: "application/json" }),
  );
  if (!requestBody)
    return fc.oneof({ weight: 9, arbitrary: fc.constant({ body: undefined, type: undefined }) }, garbage);
  if (!body) {
    const form = fc.dictionary(fc.constantFrom("token", "new_password", "x"), anyText);
    const encode = (fields: Record<string, string>) => String(new URLSearchParams(fields));
    return fc.oneof(form.map(encode).map(as("application/x-www-form-urlencoded")), garbage);
  }
  const values = valuesOf(document, body);
  const text = (value: unknown) => as("application/json")(JSON.stringify(value) ?? "");
  return fc.oneof(
    { weight: 5, arbitrary: values.map(text) },
    { weight: 4, arbitrary: values.chain(spoiled).map(text) },
    { weight: 1, arbitrary: anyJson.map(text) },
    { weight: 1, arbitrary: garbage },
  );
}

/** Printable, as a header may have it. */
const headerText = fc.oneof(
  fc.stringMatching(/^[ -~]{0,60}$/).map((text) => text.trim()),
  fc.constantFrom("", ",", ";", "=", '"', "x".repeat(500), "\u00e9\u00ff"),
);

function headersOf(tokens: Word): fc.Arbitrary<Record<string, string>> {
  const odd = {
    // Without what would end it in a URL: the path would be another.
    Host: fc.oneof(
      fc.constantFrom("[", "[::1", "x:99999", "x:y", "%", "a b", "@"),
      headerText.map((text) => text.replace(/[/?#]/g, "") || "localhost"),
    ),
    "X-Request-Id": headerText,
    "X-Forwarded-For": fc.oneof(fc.ipV4(), fc.ipV6(), headerText),
    "X-Forwarded-Proto": fc.oneof(fc.constantFrom("http", "https"), headerText),
    Origin: fc.oneof(fc.webUrl(), headerText),
    Prefer: fc.oneof(
      fc.constantFrom("wait=0", "wait=1", "respond-async", 'wait="0"', "wait=-1"),
      fc.constant(""),
    ),
    "Last-Event-ID": fc.oneof(fc.nat().map(String), headerText),
    "If-None-Match": headerText,
    "Accept-Encoding": fc.oneof(fc.constantFrom("gzip", "br", "gzip;q=0", "*"), headerText),
    Accept: headerText,
    Cookie: headerText,
    "User-Agent": headerText,
  };
  const authorization = fc.oneof(
    { weight: 12, arbitrary: tokens.map((token) => `Bearer ${token}`) },
    { weight: 1, arbitrary: headerText },
    { weight: 1, arbitrary: fc.constant("") },
  );
  const some = fc.oneof(
    { weight: 3, arbitrary: fc.constant({}) },
    { weight: 1, arbitrary: fc.record(odd, { requiredKeys: [] }) },
  );
  return fc.tuple(authorization, some).map(([Authorization, others]) => ({
    ...(Authorization && { Authorization }),
    ...others,
  }));
}

function queriesOf(document: ApiDocument, { parameters }: Operation): Word {
  const known = parameters.filter(({ in: where }) => where === "query");
  const valid = fc.record(
    Object.fromEntries(
      known.map(({ name, schema }) => [name, valuesOf(document, schema).map((value) => String(value))]),
    ),
    { requiredKeys: [] },
  );
  const names = known.length > 0 ? fc.constantFrom(...known.map(({ name }) => name)) : anyName;
  const encode = (fields: Record<string, string | undefined>) => {
    const query = new URLSearchParams();
    for (const [name, value = ""] of Object.entries(fields)) query.set(name, value.slice(0, 1000));
    const text = String(query);
    return text && `?${text}`;
  };
  return fc.oneof(
    { weight: 4, arbitrary: valid.map(encode) },
    { weight: 2, arbitrary: fc.tuple(names, anyName).map(([name, value]) => encode({ [name]: value })) },
    { weight: 1, arbitrary: fc.stringMatching(/^[!-"$-~]{0,40}$/).map((text) => `?${text}`) },
  );
}

/** A request to one of `operations`, valid or with something wrong; `known` are ids that there are. */
export function requests(
  document: ApiDocument,
  operations: Operation[],
  { tokens, known }: { tokens: Word; known: Record<string, Word> },
): fc.Arbitrary<FuzzRequest> {
  const of = (operation: Operation) => {
    const names = operation.parameters.filter(({ in: where }) => where === "path").map(({ name }) => name);
    const ids = fc.record(
      Object.fromEntries(
        names.map((name) => [
          name,
          fc.oneof(
            { weight: 6, arbitrary: known[name] ?? fc.constant("x") },
            { weight: 1, arbitrary: anyName },
          ),
        ]),
      ),
    );
    const elsewhere = fc.oneof(
      { weight: 30, arbitrary: fc.constant(undefined) },
      { weight: 1, arbitrary: fc.constantFrom("PATCH", "OPTIONS", "HEAD", "DELETE", "PUT", "POST", "GET") },
    );
    return fc
      .record({
        ids,
        query: queriesOf(document, operation),
        headers: headersOf(tokens),
        content: bodiesOf(document, operation),
        method: elsewhere,
        slash: fc.boolean(),
      })
      .map(({ ids, query, headers, content, method = operation.method, slash }): FuzzRequest => {
        const path = operation.path.replace(/\{(\w+)\}/g, (_, name) => encodeURIComponent(ids[name] ?? ""));
        const mayHaveBody = method !== "GET" && method !== "HEAD";
        return {
          operation: operation.key,
          method,
          path: path + (slash ? "/" : ""),
          query,
          headers: { ...headers, ...(content.type && mayHaveBody && { "Content-Type": content.type }) },
          body: mayHaveBody ? content.body : undefined,
          // An empty name, or one of dots, makes it another path.
          isElsewhere: method !== operation.method || names.some((name) => /^\.*$/.test(ids[name] ?? "")),
        };
      });
  };
  return fc.oneof(...operations.map(of));
}
