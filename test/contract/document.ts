import Ajv2020, { type ValidateFunction } from "ajv/dist/2020.js";
import addFormats from "ajv-formats";

/** What of JSON Schema the document uses. */
export interface Schema {
  $ref?: string;
  type?: string | string[];
  enum?: unknown[];
  properties?: Record<string, Schema>;
  required?: string[];
  items?: Schema;
  additionalProperties?: boolean | Schema;
  allOf?: Schema[];
  anyOf?: Schema[];
  oneOf?: Schema[];
  example?: unknown;
  default?: unknown;
  format?: string;
  pattern?: string;
  minLength?: number;
  maxLength?: number;
  minimum?: number;
  maximum?: number;
  maxItems?: number;
  description?: string;
}

export interface Parameter {
  name: string;
  in: "path" | "query" | "header";
  required?: boolean;
  schema: Schema;
}

interface Content {
  content?: Record<string, { schema: Schema }>;
}

export interface AnswerObject extends Content {
  description: string;
  headers?: Record<string, { $ref?: string; description?: string }>;
}

interface OperationObject {
  operationId: string;
  summary?: string;
  tags?: string[];
  security?: Record<string, string[]>[];
  parameters?: Parameter[];
  requestBody?: Content & { required?: boolean };
  responses: Record<string, AnswerObject>;
}

export interface OpenApi {
  openapi: string;
  tags: { name: string; description: string }[];
  paths: Record<string, Record<string, OperationObject>>;
  components: {
    schemas: Record<string, Schema>;
    securitySchemes: Record<string, unknown>;
    headers: Record<string, unknown>;
  };
}

/** One method of one path. */
export interface Operation extends OperationObject {
  /** "POST /api/v1/auth/login" */
  key: string;
  method: string;
  path: string;
  parameters: Parameter[];
  /** Of its JSON body. */
  body: Schema | undefined;
  /** There is no way in without a token. */
  needsToken: boolean;
  isSocket: boolean;
}

/** The OpenAPI document as the tests ask it: its operations, its fields, and whether an answer fits. */
export class ApiDocument {
  readonly operations = new Map<string, Operation>();
  readonly #ajv = new Ajv2020({ strict: false, allErrors: true });
  readonly #validators = new Map<string, ValidateFunction>();

  constructor(readonly document: OpenApi) {
    addFormats.default(this.#ajv);
    for (const [path, methods] of Object.entries(document.paths)) {
      for (const [method, operation] of Object.entries(methods)) {
        const key = `${method.toUpperCase()} ${path}`;
        this.operations.set(key, {
          ...operation,
          key,
          method: method.toUpperCase(),
          path,
          parameters: operation.parameters ?? [],
          body: operation.requestBody?.content?.["application/json"]?.schema,
          needsToken:
            (operation.security?.length ?? 0) > 0 &&
            (operation.security ?? []).every((way) => Object.keys(way).length > 0),
          isSocket: "101" in operation.responses,
        });
      }
    }
  }

  static async of(url: string): Promise<ApiDocument> {
    const response = await fetch(`${url}/openapi.json`);
    if (response.status !== 200) throw new Error(`/openapi.json: ${response.status}`);
    const document: OpenApi = JSON.parse(await response.text());
    return new ApiDocument(document);
  }

  /** Names of the headers that answers have in common. */
  get headers(): string[] {
    return Object.keys(this.document.components.headers);
  }

  operation(key: string): Operation {
    const operation = this.operations.get(key);
    if (!operation) throw new Error(`${key} is not in the OpenAPI document`);
    return operation;
  }

  schema(name: string): Schema {
    const schema = this.document.components.schemas[name];
    if (!schema) throw new Error(`no schema ${name}`);
    return schema;
  }

  /** Schema of the JSON that `operation` answers with `status`. */
  answerSchema(operation: Operation, status: number): Schema | undefined {
    return operation.responses[status]?.content?.["application/json"]?.schema;
  }

  /** What is wrong with an answer: its status, its type, a missing, wrong or undocumented field. */
  faults(operation: Operation, answer: { status: number; type: string; text: string }): string[] {
    const documented = operation.responses[answer.status];
    if (!documented) return [`${operation.key} answers ${answer.status}, which is not documented`];
    const content = documented.content ?? {};
    if (Object.keys(content).length === 0) {
      return answer.text === ""
        ? []
        : [`${operation.key} ${answer.status} has a body that is not documented`];
    }
    const type = answer.type.split(";")[0] ?? "";
    const schema = content[type]?.schema;
    if (!schema) return [`${operation.key} ${answer.status} is "${type}", which is not documented`];
    if (type !== "application/json") return [];
    return this.misfits(`${operation.key} ${answer.status}`, schema, JSON.parse(answer.text));
  }

  /** Where `value` does not fit `schema`, which is known by `name`; undocumented fields don't fit. */
  misfits(name: string, schema: Schema, value: unknown): string[] {
    let validate = this.#validators.get(name);
    if (!validate) {
      validate = this.#ajv.compile(this.closed(schema));
      this.#validators.set(name, validate);
    }
    if (validate(value)) return [];
    return (validate.errors ?? []).map(
      ({ instancePath, message, params }) => `${name}: ${instancePath} ${message} ${JSON.stringify(params)}`,
    );
  }

  resolve(schema: Schema): Schema {
    if (!schema.$ref) return schema;
    return this.schema(schema.$ref.replace("#/components/schemas/", ""));
  }

  /** The schema without references, which allows no field that it does not name. */
  closed(schema: Schema): Schema {
    const { $ref, allOf, ...own } = schema;
    if ($ref) return this.closed(this.resolve(schema));
    if (allOf) return this.closed(this.#merged([...allOf, own]));
    const { properties, items, anyOf, additionalProperties } = own;
    return {
      ...own,
      ...(properties && {
        properties: mapValues(properties, (property) => this.closed(property)),
        additionalProperties: additionalProperties ?? false,
      }),
      ...(typeof additionalProperties === "object" && {
        additionalProperties: this.closed(additionalProperties),
      }),
      ...(items && { items: this.closed(items) }),
      ...(anyOf && { anyOf: anyOf.map((one) => this.closed(one)) }),
    };
  }

  #merged(parts: Schema[]): Schema {
    const merged: Schema = {};
    for (const part of parts.map((one) => this.resolve(one))) {
      const { properties, required, ...rest } = part.allOf ? this.#merged(part.allOf) : part;
      Object.assign(merged, rest);
      if (properties) merged.properties = { ...merged.properties, ...properties };
      if (required) merged.required = [...(merged.required ?? []), ...required];
    }
    return merged;
  }

  /**
   * Names of the fields of `schema`, each with the component that defines it: "User.email",
   * "Cluster.capacity.total_cpu", "LogServerMessage(welcome).message". With `value`, of those only that are in it.
   */
  fields(schema: Schema, at: string, value?: { is: unknown }): string[] {
    const { $ref, allOf, anyOf, properties, items, additionalProperties } = schema;
    if ($ref) return this.fields(this.resolve(schema), $ref.replace("#/components/schemas/", ""), value);
    const own = Object.entries(properties ?? {}).flatMap(([name, property]) => {
      const inner = value && within(value.is, name);
      if (value && !inner) return [];
      return [`${at}.${name}`, ...this.fields(property, `${at}.${name}`, inner)];
    });
    const elements = value ? (Array.isArray(value.is) ? value.is.map((is) => ({ is })) : []) : [undefined];
    const values =
      value && isRecord(value.is) ? Object.values(value.is).map((is) => ({ is })) : value ? [] : [undefined];
    return [
      ...own,
      ...(allOf ?? []).flatMap((part) => this.fields(part, at, value)),
      ...(anyOf ?? []).flatMap((branch) => {
        const type = this.resolve(branch).properties?.type?.enum?.[0];
        if (type === undefined) return this.fields(branch, at, value);
        if (value && within(value.is, "type")?.is !== type) return [];
        return this.fields(branch, `${at}(${String(type)})`, value);
      }),
      ...(items ? elements.flatMap((element) => this.fields(items, at, element)) : []),
      ...(typeof additionalProperties === "object"
        ? values.flatMap((one) => this.fields(additionalProperties, at, one))
        : []),
    ];
  }
}

function within(value: unknown, name: string): { is: unknown } | undefined {
  return isRecord(value) && name in value ? { is: value[name] } : undefined;
}

export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function mapValues<T, U>(record: Record<string, T>, change: (value: T) => U): Record<string, U> {
  return Object.fromEntries(Object.entries(record).map(([name, value]) => [name, change(value)]));
}
