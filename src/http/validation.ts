import { z } from "@hono/zod-openapi";
import type { ZodError } from "zod";
import { AppError, type FieldError } from "../errors.ts";

type Issue = ZodError["issues"][number];

/** `errors[].code` of a request that does not fit its schema, as the OpenAPI document lists them. */
export const FIELD_CODES = {
  required: "The field is missing",
  invalid_type: "The value has the wrong JSON type",
  invalid_format: "The text does not have the form that is asked for",
  invalid_enum: "The value is not one of those allowed",
  invalid_value: "The value breaks a rule that the message names",
  invalid_key: "The name of an entry is not allowed",
  min_length: "The text is too short",
  max_length: "The text is too long",
  min_value: "The number is too small",
  max_value: "The number is too large",
  min_items: "There are too few entries",
  max_items: "There are too many entries",
  multiple_of: "The number is not a multiple of the one asked for",
  invalid_json: "The body is not valid JSON",
} as const;

type FieldCode = keyof typeof FIELD_CODES;

/** A body of a megabyte can have a hundred thousand faults; nobody reads them. */
const MAX_ERRORS = 50;
const MAX_FIELD_LENGTH = 200;

const TOO_SMALL = { string: "min_length", number: "min_value", bigint: "min_value" } as const;
const TOO_BIG = { string: "max_length", number: "max_value", bigint: "max_value" } as const;

/** What zod found wrong with `input`, as the error it is answered with. */
export function validationError(error: ZodError, input?: unknown): AppError {
  return new AppError("validation", "Request validation failed", {
    fields: error.issues.slice(0, MAX_ERRORS).map((issue) => fieldError(issue, input)),
  });
}

function fieldError(issue: Issue, input: unknown): FieldError {
  return {
    field: issue.path.map(String).join(".").slice(0, MAX_FIELD_LENGTH) || "body",
    message: issue.message,
    code: fieldCode(issue, input),
  };
}

function fieldCode(issue: Issue, input: unknown): string {
  if (issue.path.length > 0 && valueAt(input, issue.path) === undefined) return "required";
  return codeOf(issue);
}

function codeOf(issue: Issue): FieldCode | string {
  switch (issue.code) {
    case "invalid_type":
    case "invalid_format":
    case "invalid_key":
      return issue.code;
    case "too_small":
      return isNamed(TOO_SMALL, issue.origin) ? TOO_SMALL[issue.origin] : "min_items";
    case "too_big":
      return isNamed(TOO_BIG, issue.origin) ? TOO_BIG[issue.origin] : "max_items";
    case "invalid_value":
      return "invalid_enum";
    case "not_multiple_of":
      return "multiple_of";
    case "custom":
      return typeof issue.params?.code === "string" ? issue.params.code : "invalid_value";
    case "unrecognized_keys":
    case "invalid_union":
    case "invalid_element":
      return "invalid_value";
  }
}

function isNamed<T extends object>(table: T, name: PropertyKey): name is keyof T {
  return Object.hasOwn(table, name);
}

function valueAt(input: unknown, path: readonly PropertyKey[]): unknown {
  let value = input;
  for (const key of path) {
    if (typeof value !== "object" || value === null || !Object.hasOwn(value, key)) return undefined;
    value = Reflect.get(value, key);
  }
  return value;
}

const TYPE_NAMES: Record<string, string> = {
  string: "a text",
  number: "a number",
  int: "a whole number",
  boolean: "true or false",
  array: "a list",
  object: "an object",
  record: "an object",
  null: "null",
};

const FORMAT_NAMES: Record<string, string> = {
  email: "email",
  url: "URL",
  datetime: "date and time",
  date: "date",
  uuid: "UUID",
};

// Zod's own texts speak to programmers. What a schema says itself goes before these.
z.config({
  customError: (issue) => {
    switch (issue.code) {
      case "invalid_type":
        if (issue.input === undefined) return "This field is required";
        return `Must be ${TYPE_NAMES[issue.expected] ?? issue.expected}`;
      case "too_small":
        return `Must ${bound(issue.origin, "at least", Number(issue.minimum))}`;
      case "too_big":
        return `Must ${bound(issue.origin, "at most", Number(issue.maximum))}`;
      case "invalid_format":
        return FORMAT_NAMES[issue.format] ? `Invalid ${FORMAT_NAMES[issue.format]} format` : "Invalid format";
      case "invalid_value":
        if (issue.input === undefined) return "This field is required";
        return `Must be one of: ${issue.values.map(String).join(", ")}`;
      case "invalid_key":
        return issue.issues[0]?.message ?? "Invalid name";
      default:
        return undefined;
    }
  },
});

function bound(origin: string, side: "at least" | "at most", value: number): string {
  if (origin === "string") return `be ${side} ${value} character${value === 1 ? "" : "s"} long`;
  if (origin === "number" || origin === "int" || origin === "bigint") return `be ${side} ${value}`;
  return `have ${side} ${value} entr${value === 1 ? "y" : "ies"}`;
}
