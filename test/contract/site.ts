import { expect } from "bun:test";
import { type TestServer, TestSocket } from "../harness.ts";
import type { Coverage } from "./coverage.ts";
import type { ApiDocument, Operation } from "./document.ts";

/** Someone with an account, signed in. */
export interface Person {
  id: string;
  username: string;
  email: string;
  password: string;
  token: string;
  refreshToken: string;
}

export interface Call {
  /** Whose access token comes along, or any text in its place; nobody's when absent. */
  as?: Person | string;
  params?: Record<string, string>;
  query?: Record<string, string>;
  headers?: Record<string, string>;
  /** Sent as JSON. */
  body?: unknown;
  /** Sent as it is. */
  raw?: { text: string | Blob; type: string };
  status: number;
  /** What the answer must hold at least; the fields it names count as shown. */
  answer?: object;
}

export interface Answer {
  // biome-ignore lint/suspicious/noExplicitAny: what rows read of answers has been checked against its schema
  body: any;
  text: string;
  headers: Headers;
}

/** A text that came as JSON or in a header, for tables. */
export const anyText = expect.any(String);
export const anyNumber = expect.any(Number);
export const anyTime = expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$/);
export const anyId = expect.stringMatching(/^[0-9a-f]{24}$/);

let people = 0;

/** A server process, its OpenAPI document, and people who use it; every call is held against the document. */
export class Site {
  constructor(
    readonly server: TestServer,
    readonly document: ApiDocument,
    readonly coverage: Coverage,
    /** Sent with every request. */
    readonly headers: Record<string, string> = {},
  ) {}

  get url(): string {
    return this.server.url;
  }

  async call(key: string, call: Call): Promise<Answer> {
    const operation = this.document.operation(key);
    const response = await this.send(operation, call);
    const text = await response.text();
    if (response.status !== call.status) {
      throw new Error(`${key}: ${response.status} instead of ${call.status}: ${text.slice(0, 500)}`);
    }
    const type = response.headers.get("content-type") ?? "";
    expect(this.document.faults(operation, { status: response.status, type, text })).toEqual([]);
    expect(response.headers.get("x-request-id")).toBeTruthy();
    const documented = operation.responses[response.status]?.headers ?? {};
    const sent = this.document.headers.filter((name) => response.headers.has(name));
    expect([key, call.status, sent.filter((name) => !(name in documented))]).toEqual([key, call.status, []]);
    // Parsed anew for each use: toMatchObject puts matchers into what it is given.
    const parsed = () => (type.startsWith("application/json") ? JSON.parse(text) : undefined);
    if (call.answer !== undefined) expect(parsed()).toMatchObject(call.answer);
    if (call.status >= 400 && parsed()) {
      expect(parsed()).toMatchObject({ timestamp: anyTime, path: decoded(pathOf(operation, call)) });
    }
    this.coverage.called(this.document, operation, {
      status: call.status,
      parameters: [call.params, call.query, call.headers].flatMap((names) => Object.keys(names ?? {})),
      body: call.status < 300 ? call.body : undefined,
      expected: call.answer,
    });
    return { body: parsed(), text, headers: response.headers };
  }

  send(operation: Operation, { as, params, query, headers, body, raw }: Omit<Call, "status">) {
    const search = query ? `?${new URLSearchParams(query)}` : "";
    const token = typeof as === "string" ? as : as?.token;
    const type = raw?.type ?? (body === undefined ? undefined : "application/json");
    const payload = raw?.text ?? (body === undefined ? undefined : JSON.stringify(body));
    return fetch(this.url + pathOf(operation, { params: params ?? {} }) + search, {
      method: operation.method,
      redirect: "manual",
      headers: {
        ...this.headers,
        ...(token && { Authorization: `Bearer ${token}` }),
        ...(type && { "Content-Type": type }),
        ...headers,
      },
      ...(payload !== undefined && { body: payload }),
    });
  }

  /** Registers someone new and signs them in. */
  async person(name = `person-${++people}`): Promise<Person> {
    const password = `${name}'s long password`;
    const email = `${name}@example.org`;
    await this.call("POST /api/v1/auth/register", { body: { username: name, email, password }, status: 201 });
    return this.signIn(name, password);
  }

  async signIn(username: string, password: string): Promise<Person> {
    const { body } = await this.call("POST /api/v1/auth/login", {
      body: { username_or_email: username, password },
      status: 200,
    });
    const { access_token: token, refresh_token: refreshToken, user } = body;
    return { id: user.id, username: user.username, email: user.email, password, token, refreshToken };
  }

  /** An environment of theirs that runs. */
  async environment(as: Person, body: Record<string, unknown> = {}): Promise<string> {
    const { body: created } = await this.call("POST /api/v1/environments", {
      as,
      body: { name: "work", template: "shell", ...body },
      headers: { Prefer: "wait=30" },
      status: 201,
      answer: { status: "running" },
    });
    return created.id;
  }

  /** The newest token of a link to `page` in the server's log, which stands for mail. */
  async linkToken(page: string, recipient: string): Promise<string> {
    const line = `recipient=${recipient} .*/${page}\\?token=([\\w-]+)`;
    await this.server.output.line(new RegExp(line));
    return [...this.server.output.text.matchAll(new RegExp(line, "g"))].at(-1)?.[1] ?? "";
  }

  /** A WebSocket whose messages are held against the document when it is closed. */
  socket(path: string, protocols: string[] = [], headers?: Record<string, string>): Promise<TestSocket> {
    return TestSocket.open(this.url + path, protocols, headers);
  }
}

function pathOf({ path }: Operation, { params = {} }: Pick<Call, "params">): string {
  return path.replace(/\{(\w+)\}/g, (_, name) => encodeURIComponent(params[name] ?? "0".repeat(24)));
}

/** As an error shows it: what is escaped of a name stays so. */
function decoded(path: string): string {
  return decodeURI(path.replaceAll("%25", "%2525"));
}
