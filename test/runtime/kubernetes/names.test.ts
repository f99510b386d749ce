import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { newId } from "../../../src/lib/ids.ts";
import { environmentOf } from "../../../src/runtime/kubernetes/events.ts";
import { environmentName, namespaceName, startupNonce } from "../../../src/runtime/kubernetes/names.ts";

const DNS_LABEL = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/;

describe("a name", () => {
  test.each([
    ["0123456789abcdef01234567", "env-0123456789abcdef01234567"],
    ["a", "env-a"],
  ])("of %s is %s", (id, name) => {
    expect(environmentName(id)).toBe(name);
  });

  test("of whatever id is a DNS label, and no two ids share one", () => {
    fc.assert(
      fc.property(fc.string({ minLength: 1 }), fc.string({ minLength: 1 }), (a, b) => {
        expect(environmentName(a)).toMatch(DNS_LABEL);
        expect(namespaceName(a)).toMatch(DNS_LABEL);
        expect(environmentName(a) === environmentName(b)).toBe(a === b);
      }),
    );
  });

  test("of an id that looks like another's hash is not that other's name", () => {
    const hashed = environmentName("UPPER").slice("env-".length);
    expect(environmentName(hashed)).not.toBe(environmentName("UPPER"));
  });
});

test("an event is its environment's by the name of any of its objects", () => {
  const [environmentId, userId] = [newId(), newId()];
  const about = (name: string, namespace = namespaceName(userId)) =>
    environmentOf({ metadata: { namespace }, involvedObject: { name } });
  for (const name of ["", "-7d9c", "-7d9c-x2x4z"]) {
    expect(about(environmentName(environmentId) + name)).toEqual({ environmentId, userId });
  }
  expect(about("env")).toBeUndefined();
  expect(about("postgres-0")).toBeUndefined();
  expect(about(environmentName(environmentId), "default")).toBeUndefined();
});

test("each generation has a nonce of its own that stays", () => {
  expect(startupNonce("a", 1)).toBe(startupNonce("a", 1));
  expect(startupNonce("a", 1)).not.toBe(startupNonce("a", 2));
  expect(startupNonce("a", 1)).toMatch(/^[0-9a-f]{24}$/);
});
