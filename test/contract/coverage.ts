import type { ApiDocument, Operation, Schema } from "./document.ts";

/** What the rows of the contract have shown, in the names of the OpenAPI document. */
export class Coverage {
  readonly statuses = new Set<string>();
  readonly parameters = new Set<string>();
  readonly requestFields = new Set<string>();
  readonly answerFields = new Set<string>();

  /** `operation` was called so and answered with `status`; what `expected` names of the answer was checked. */
  called(
    document: ApiDocument,
    operation: Operation,
    {
      status,
      parameters,
      body,
      expected,
    }: { status: number; parameters: string[]; body: unknown; expected: unknown },
  ): void {
    this.statuses.add(`${operation.key} ${status}`);
    for (const name of parameters) {
      const known = operation.parameters.find((one) => one.name.toLowerCase() === name.toLowerCase());
      if (known) this.parameters.add(`${operation.key} ${known.name}`);
    }
    if (operation.body) {
      for (const field of document.fields(operation.body, operation.key, { is: body }))
        this.requestFields.add(field);
    }
    const schema = document.answerSchema(operation, status);
    if (schema) this.answered(document, schema, expected, operation.key);
  }

  answered(document: ApiDocument, schema: Schema, expected: unknown, at = "answer"): void {
    for (const field of document.fields(schema, at, { is: expected })) this.answerFields.add(field);
  }

  /** What the document has and no row has shown. */
  gaps(document: ApiDocument): { statuses: string[]; parameters: string[]; fields: string[] } {
    const operations = [...document.operations.values()];
    const statuses = operations.flatMap(({ key, responses }) =>
      Object.keys(responses).map((status) => `${key} ${status}`),
    );
    const parameters = operations.flatMap(({ key, parameters }) =>
      parameters.map(({ name }) => `${key} ${name}`),
    );
    const requested = operations.flatMap(({ key, body }) => (body ? document.fields(body, key) : []));
    const answered = [
      ...operations.flatMap((operation) =>
        Object.keys(operation.responses).flatMap((status) => {
          const schema = document.answerSchema(operation, Number(status));
          return schema ? document.fields(schema, operation.key) : [];
        }),
      ),
      ...["TerminalServerMessage", "LogServerMessage"].flatMap((name) =>
        document.fields(document.schema(name), name),
      ),
    ];
    const sent = ["TerminalClientMessage", "LogClientMessage"].flatMap((name) =>
      document.fields(document.schema(name), name),
    );
    return {
      statuses: statuses.filter((one) => !this.statuses.has(one)),
      parameters: parameters.filter((one) => !this.parameters.has(one)),
      fields: [
        ...[...requested, ...sent].filter((one) => !this.requestFields.has(one)),
        ...answered.filter((one) => !this.answerFields.has(one)),
      ].filter((one, index, all) => all.indexOf(one) === index),
    };
  }
}
