import {
  type ApiConstructor,
  type ApiType,
  createConfiguration,
  type PromiseHttpLibrary,
  type RequestContext,
  ResponseContext,
  ServerConfiguration,
  wrapHttpLibrary,
} from "@kubernetes/client-node";
import type { Connection } from "./connection.ts";
import { isStatus, statusError, unreachable } from "./errors.ts";
import type { KubeObject, Manifest, Metadata } from "./objects.ts";
import { jsonLines } from "./streams.ts";

/** Who has set a field, in the objects' managedFields. */
export const FIELD_MANAGER = "devpocket";

const REQUEST_TIMEOUT_MS = 15_000;
const CONFLICT_ATTEMPTS = 4;

/** https://kubernetes.io/docs/reference/using-api/api-concepts/#metadata-only-fetches */
const METADATA_ONLY = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";

export type Query = Record<string, string | number | boolean | undefined>;

export interface RequestOptions {
  query?: Query;
  /** The media type of the answer, where it is not to be the usual one. */
  accept?: string;
  body?: unknown;
  contentType?: string;
  signal?: AbortSignal;
  timeoutMs?: number;
}

export interface ObjectList<T> {
  metadata: { resourceVersion?: string };
  items: T[];
}

/** Of none, the API server sends null in this form. */
type PartialList = Omit<ObjectList<KubeObject>, "items"> & { items: KubeObject[] | null };

export type WatchEvent<T> =
  | { type: "ADDED" | "MODIFIED" | "DELETED"; object: T }
  | { type: "BOOKMARK"; object: { metadata: Metadata } }
  | { type: "ERROR"; object: WatchError };

/** A Status object. */
export interface WatchError {
  code?: number;
  reason?: string;
  message?: string;
}

export interface KubeClient {
  connection: Connection;
  /** One of the library's typed clients, over this connection. */
  api<T extends ApiType>(type: ApiConstructor<T>): T;
  /**
   * An answer of success.
   *
   * @throws KubeStatusError for another one, RuntimeUnreachable when there is none
   */
  request(method: string, path: string, options?: RequestOptions): Promise<Response>;
  /** The object that an answer of success holds; of one that is cut short or no JSON: RuntimeUnreachable. */
  requestJson<T>(method: string, path: string, options?: RequestOptions): Promise<T>;
  /** Null: there is none. */
  get<T>(path: string, options?: RequestOptions): Promise<T | null>;
  list<T>(path: string, query?: Query, signal?: AbortSignal): Promise<ObjectList<T>>;
  /** Of each object only its metadata: a list is then small, and no secret comes over the wire. */
  listMetadata(path: string, query?: Query): Promise<ObjectList<KubeObject>>;
  /** Server-side apply; fields that others have set are taken over. */
  apply<T>(path: string, manifest: Manifest): Promise<T>;
  /** What is not there is deleted. */
  delete(path: string, options?: { graceSeconds?: number; uid?: string }): Promise<void>;
  /** Ends when the server ends it; it is for the caller to watch again. */
  watch<T>(path: string, query: Query, signal: AbortSignal): AsyncGenerator<WatchEvent<T>>;
}

/** Talks to one cluster's API server over Bun's fetch. */
export function createKubeClient(connection: Connection): KubeClient {
  async function send(method: string, url: string, init: Sent): Promise<Response> {
    try {
      const { headers, tls } = await connection.credentials();
      const all = { ...init.headers, ...headers };
      return await fetch(url, { ...init, method, headers: all, tls, redirect: "error" });
    } catch (error) {
      throw unreachable(error);
    }
  }

  async function request(method: string, path: string, options: RequestOptions = {}): Promise<Response> {
    const { query, accept, body, contentType = "application/json" } = options;
    const { timeoutMs = REQUEST_TIMEOUT_MS } = options;
    const timeout = AbortSignal.timeout(timeoutMs);
    const response = await send(method, urlOf(connection.server, path, query), {
      headers: {
        ...(accept ? { Accept: accept } : {}),
        ...(body === undefined ? {} : { "Content-Type": contentType }),
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      signal: options.signal ? AbortSignal.any([options.signal, timeout]) : timeout,
    });
    if (!response.ok) throw statusError(response.status, await textOf(response));
    return response;
  }

  /** What the API server sends has the shape that its documentation gives it. */
  async function requestJson<T>(method: string, path: string, options?: RequestOptions): Promise<T> {
    const response = await request(method, path, options);
    try {
      return (await response.json()) as T;
    } catch (error) {
      throw unreachable(error);
    }
  }

  async function get<T>(path: string, options?: RequestOptions): Promise<T | null> {
    try {
      return await requestJson<T>("GET", path, options);
    } catch (error) {
      if (isStatus(error, 404)) return null;
      throw error;
    }
  }

  async function apply<T>(path: string, manifest: Manifest): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      try {
        const options = {
          query: { fieldManager: FIELD_MANAGER, force: true },
          body: manifest,
          contentType: "application/apply-patch+yaml",
        };
        return await requestJson<T>("PATCH", path, options);
      } catch (error) {
        // Somebody else wrote between the API server's read and write: its answer is to try again.
        if (!isStatus(error, 409) || attempt === CONFLICT_ATTEMPTS) throw error;
      }
    }
  }

  return {
    connection,
    request,
    requestJson,
    get,
    apply,
    api: (type) => new type(typedConfiguration(connection, send)),
    list: (path, query, signal) =>
      requestJson("GET", path, { ...(query ? { query } : {}), ...(signal ? { signal } : {}) }),
    async listMetadata(path, query = {}) {
      const list = await requestJson<PartialList>("GET", path, { query, accept: METADATA_ONLY });
      return { ...list, items: list.items ?? [] };
    },
    async delete(path, { graceSeconds, uid } = {}) {
      const body = {
        kind: "DeleteOptions",
        apiVersion: "v1",
        propagationPolicy: "Background",
        ...(graceSeconds === undefined ? {} : { gracePeriodSeconds: graceSeconds }),
        ...(uid === undefined ? {} : { preconditions: { uid } }),
      };
      try {
        await textOf(await request("DELETE", path, { body }));
      } catch (error) {
        // 409: the object of that uid is gone, or was deleted by somebody else at this moment.
        if (!isStatus(error, 404) && !isStatus(error, 409)) throw error;
      }
    },
    async *watch<T>(path: string, query: Query, signal: AbortSignal) {
      const watching = { ...query, watch: true, allowWatchBookmarks: true };
      const response = await send("GET", urlOf(connection.server, path, watching), {
        signal,
        timeout: false,
      });
      if (!response.ok) throw statusError(response.status, await textOf(response));
      if (!response.body) return;
      try {
        yield* jsonLines<WatchEvent<T>>(response.body);
      } catch (error) {
        throw unreachable(error);
      }
    },
  };
}

function urlOf(server: string, path: string, query: Query = {}): string {
  const url = new URL(server + path);
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined) url.searchParams.set(name, String(value));
  }
  return url.href;
}

async function textOf(response: Response): Promise<string> {
  try {
    return await response.text();
  } catch (error) {
    throw unreachable(error);
  }
}

interface Sent {
  headers?: Record<string, string>;
  body?: string;
  signal: AbortSignal;
  /** False: Bun's limit of five minutes on an answer does not count. */
  timeout?: false;
}

type Send = (method: string, url: string, init: Sent) => Promise<Response>;

function typedConfiguration(connection: Connection, send: Send) {
  const http: PromiseHttpLibrary = {
    async send(context: RequestContext): Promise<ResponseContext> {
      const body = context.getBody();
      const response = await send(context.getHttpMethod(), context.getUrl(), {
        headers: context.getHeaders(),
        ...(typeof body === "string" ? { body } : {}),
        signal: context.getSignal() ?? AbortSignal.timeout(REQUEST_TIMEOUT_MS),
      });
      const text = await textOf(response);
      if (!response.ok) throw statusError(response.status, text);
      return new ResponseContext(response.status, Object.fromEntries(response.headers), {
        text: async () => text,
        binary: async () => Buffer.from(text),
        stream: () => new Response(text).body,
      });
    },
  };
  return createConfiguration({
    baseServer: new ServerConfiguration(connection.server, {}),
    httpApi: wrapHttpLibrary(http),
  });
}
