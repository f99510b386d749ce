import { describe, expect, test } from "bun:test";
import {
  asReadError,
  asRuntimeError,
  quotaWords,
  statusError,
  unreachable,
} from "../../../src/runtime/kubernetes/api/errors.ts";
import { RuntimeRejected, RuntimeUnreachable } from "../../../src/runtime/runtime.ts";

function status(code: number, message: string, causes: object[] = []) {
  return statusError(code, JSON.stringify({ kind: "Status", code, message, details: { causes } }));
}

const EXCEEDED =
  'pods "env-1" is forbidden: exceeded quota: devpocket, requested: limits.cpu=1,limits.memory=2Gi, ' +
  "used: limits.cpu=1,limits.memory=1Gi, limited: limits.cpu=1500m,limits.memory=2Gi";

describe("an answer of the API server", () => {
  test.each([
    [401, "Unauthorized", RuntimeUnreachable],
    [429, "slow down", RuntimeUnreachable],
    [500, "etcdserver: request timed out", RuntimeUnreachable],
    [503, "apiserver is shutting down", RuntimeUnreachable],
    [409, "the object has been modified", RuntimeUnreachable],
    [403, 'User "x" cannot create resource "pods"', RuntimeRejected],
    [422, "spec.port: Invalid value: 70000", RuntimeRejected],
  ])("with status %d (%s) means something to who writes", (code, message, type) => {
    expect(asRuntimeError(status(code, message))).toBeInstanceOf(type);
  });

  test("that refuses a read says nothing about the environment", () => {
    expect(asReadError(status(403, "cannot list pods"))).toBeInstanceOf(RuntimeUnreachable);
  });

  test.each([
    ["quota", status(403, EXCEEDED)],
    [
      "ending",
      status(403, "unable to create new content in namespace a because it is being terminated", [
        { reason: "NamespaceTerminating", message: "namespace a is being terminated" },
      ]),
    ],
    ["rejected", status(403, "violates PodSecurity")],
  ] as const)("is a refusal of its kind: %s", (kind, error) => {
    expect(asRuntimeError(error)).toMatchObject({ kind });
  });

  test("that is no Status object is told by its number", () => {
    expect(statusError(502, "<html>Bad Gateway</html>").message).toBe(
      "the API server answered with status 502",
    );
  });
});

test("an exceeded quota is told with its figures", () => {
  expect(quotaWords(EXCEEDED)).toBe(
    "Quota exceeded (CPU: 1 asked for, 1 of 1500m in use; memory: 2Gi asked for, 1Gi of 2Gi in use)",
  );
  expect(quotaWords("exceeded quota")).toBe("Quota exceeded");
});

function failure(message: string, code?: string): Error {
  return Object.assign(new Error(message), { code });
}

describe("a failure on the way is told without addresses:", () => {
  test.each([
    ["no answer in time", new DOMException("The operation timed out.", "TimeoutError")],
    ["connection refused", failure("Unable to connect to 10.0.0.1", "ConnectionRefused")],
    [
      "its TLS certificate is not trusted or the handshake failed",
      failure("unable to verify the first certificate"),
    ],
    ["the connection was cut", failure("The socket connection was closed unexpectedly", "ECONNRESET")],
    ["the connection failed", failure("who knows 10.0.0.1")],
  ])("%s", (words, error) => {
    expect(unreachable(error).message).toBe(`The cluster can't be reached: ${words}`);
  });
});
