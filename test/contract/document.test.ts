import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { DEVPOCKET, TestServer } from "../harness.ts";
import { ApiDocument, type Operation, type Schema } from "./document.ts";

/* Whether the OpenAPI document is complete and says what is so; what it describes is the contract's matter. */

let server: TestServer;
let document: ApiDocument;
let operations: Operation[];

beforeAll(async () => {
  server = await TestServer.start();
  document = await ApiDocument.of(server.url);
  operations = [...document.operations.values()];
});
afterAll(() => server?.stop());

/** Every schema of the document with its place, the inner ones too. */
function* schemas(): Generator<[place: string, schema: Schema]> {
  for (const [name, schema] of Object.entries(document.document.components.schemas)) {
    yield* within(name, schema);
  }
  for (const { key, parameters } of operations) {
    for (const { name, schema } of parameters) yield* within(`${key} ?${name}`, schema);
  }
}

function* within(place: string, schema: Schema): Generator<[string, Schema]> {
  yield [place, schema];
  for (const [name, property] of Object.entries(schema.properties ?? {})) {
    yield* within(`${place}.${name}`, property);
  }
  for (const part of [...(schema.allOf ?? []), ...(schema.anyOf ?? [])]) yield* within(place, part);
  if (schema.items) yield* within(`${place}[]`, schema.items);
}

/** A value made of the examples that a schema has; of its required fields at least. */
function exampleOf(schema: Schema): unknown {
  const { example, properties, enum: values, items, required = [], default: fallback } = schema;
  if (example !== undefined) return example;
  if (properties) {
    const shown = Object.entries(properties).filter(
      ([name, property]) => required.includes(name) || property.example !== undefined,
    );
    return Object.fromEntries(shown.map(([name, property]) => [name, exampleOf(property)]));
  }
  if (fallback !== undefined) return fallback;
  if (values) return values[0];
  if (items) return [];
  return schema.type === "string" ? "text" : {};
}

describe("the OpenAPI document", () => {
  test("gives every operation an id of its own, fit for a name in a program, and a summary", () => {
    const ids = operations.map(({ operationId }) => operationId);
    expect(new Set(ids).size).toBe(ids.length);
    expect(ids.filter((id) => !/^[a-z][A-Za-z]+$/.test(id))).toEqual([]);
    expect(operations.filter(({ summary }) => !summary).map(({ key }) => key)).toEqual([]);
  });

  test("describes every tag that is used, and uses every one that it describes", () => {
    const used = new Set(operations.flatMap(({ tags = [] }) => tags));
    const described = document.document.tags.map(({ name }) => name);
    expect([...used].toSorted()).toEqual(described.toSorted());
    expect(operations.filter(({ tags }) => !tags?.length)).toEqual([]);
  });

  test("names each parameter of a path, and every reference leads somewhere", () => {
    for (const { key, path, parameters } of operations) {
      const named = [...path.matchAll(/\{(\w+)\}/g)].map(([, name = ""]) => name);
      const described = parameters.filter(({ in: where }) => where === "path").map(({ name }) => name);
      expect([key, described]).toEqual([key, named]);
    }
    const text = JSON.stringify(document.document);
    for (const [, kind = "", name = ""] of text.matchAll(/"#\/components\/(\w+)\/([^"]+)"/g)) {
      expect([name, name in (Reflect.get(document.document.components, kind) ?? {})]).toEqual([name, true]);
    }
  });

  test("says of every operation whether it needs a token, and then has 401; every error has a body", () => {
    const schemes = Object.keys(document.document.components.securitySchemes);
    expect(schemes).toEqual(["bearerAuth"]);
    for (const { key, needsToken, responses } of operations) {
      if (needsToken) expect([key, "401" in responses]).toEqual([key, true]);
      for (const [status, { content, description }] of Object.entries(responses)) {
        expect(description).not.toBe("");
        if (Number(status) >= 400) expect([key, status, content]).toEqual([key, status, expect.anything()]);
      }
    }
  });

  test("documents the headers of answers", () => {
    for (const { key, responses, path } of operations) {
      for (const [status, { headers = {} }] of Object.entries(responses)) {
        const names = Object.keys(headers);
        expect([key, status, names]).toEqual([key, status, expect.arrayContaining(["X-Request-Id"])]);
        if (path.startsWith("/api/v1/") && status !== "101") expect(names).toContain("X-RateLimit-Remaining");
        if (status === "429") expect(names).toContain("Retry-After");
        if (status === "401") expect(names).toContain("WWW-Authenticate");
      }
    }
  });

  test("has examples that fit their schemas, for every body that can be sent", () => {
    for (const [place, schema] of schemas()) {
      if (schema.example === undefined) continue;
      expect(document.misfits(`example of ${place}`, schema, schema.example)).toEqual([]);
    }
    for (const { key, body } of operations) {
      if (!body) continue;
      const whole = document.closed(body);
      expect([key, document.misfits(`${key} example`, whole, exampleOf(whole))]).toEqual([key, []]);
    }
  });

  test("describes the messages of the WebSockets", () => {
    for (const name of ["TerminalClient", "TerminalServer", "LogClient", "LogServer"]) {
      expect(document.schema(`${name}Message`).anyOf?.length).toBeGreaterThan(1);
    }
    const sockets = operations.filter(({ isSocket }) => isSocket);
    expect(sockets.map(({ key }) => key)).toEqual([
      "GET /api/v1/ws/terminal/{environment_id}",
      "GET /api/v1/ws/logs/{environment_id}",
    ]);
    for (const socket of sockets) expect(Reflect.get(socket, "description")).toContain("1008");
  });

  test("is what the command line prints", async () => {
    const printed = Bun.spawn([...DEVPOCKET, "openapi"], {
      cwd: `${import.meta.dir}/../..`,
      stdout: "pipe",
      stderr: "ignore",
    });
    expect(JSON.parse(await new Response(printed.stdout).text())).toEqual(document.document);
  });
});
