import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import type { Table } from "./row.ts";
import { AUTHENTICATION } from "./rows/auth.ts";
import { CLUSTERS } from "./rows/clusters.ts";
import { COMMON, HEALTH, LOST_DATABASE, NEEDS_NO_DATABASE, RATE_LIMITS } from "./rows/common.ts";
import { ENVIRONMENTS } from "./rows/environments.ts";
import { SOCKETS } from "./rows/sockets.ts";
import { TEMPLATES } from "./rows/templates.ts";
import { USERS } from "./rows/users.ts";
import { DECISIONS, ELSEWHERE, SECTIONS } from "./statements.ts";
import { openWorld, type World } from "./world.ts";

/*
 * The specification, statement by statement, over HTTP and WebSocket against real server processes. Each row
 * says where its statement stands (row.ts has the notation); every answer is held against the OpenAPI document.
 * Rows run in order; those that use up limits or lose a database come last.
 */

let world: World;
beforeAll(async () => {
  world = await openWorld();
}, 30_000);
afterAll(() => world?.close());

const TABLES: Record<string, Table> = {
  health: HEALTH,
  "what all share": COMMON,
  authentication: AUTHENTICATION,
  users: USERS,
  templates: TEMPLATES,
  clusters: CLUSTERS,
  environments: ENVIRONMENTS,
  sockets: SOCKETS,
  "rate limits": RATE_LIMITS,
  "a lost database": LOST_DATABASE,
};

for (const [name, table] of Object.entries(TABLES)) {
  describe(name, () => {
    for (const [from, says, check] of table) {
      test(`${from}: ${says}`, async () => void (await check(world)), 30_000);
    }
  });
}

/** Documented answers that no row brings about, each with the reason. */
const NOT_BROUGHT_ABOUT: Record<string, string> = {
  "POST /api/v1/ws/ticket 503": "10,000 tickets open at a time: test/sockets",
  "DELETE /api/v1/environments/{environment_id}/terminals/{session_id} 503":
    "a cluster that is gone with a terminal in it: test/sockets",
  ...Object.fromEntries(
    [
      "POST /api/v1/auth/login",
      "POST /api/v1/auth/register",
      "POST /api/v1/auth/reset-password",
      "POST /reset-password",
      "PUT /api/v1/users/me/password",
    ].map((key) => [`${key} 503`, "66 passwords are hashed at a time: test/auth"]),
  ),
  ...Object.fromEntries(
    [...NEEDS_NO_DATABASE].map((key) => [`${key} 500`, "nothing in it is known to be able to fail"]),
  ),
};

/** Places that rows cite: "R 127", "D ids". */
function cited(): string[] {
  const places = Object.values(TABLES).flatMap((table) => table.flatMap(([from]) => from.split(", ")));
  // "D status, object" are two rows of the decisions.
  let document = "";
  return places.map((place) => {
    const named = /^([RED]) (.+)$/.exec(place);
    if (named) document = named[1] ?? "";
    return named ? place : `${document} ${place}`;
  });
}

describe("the contract has a row", () => {
  test("for every part of the two texts", () => {
    const lines = cited().map((place) => [place.slice(0, 1), Number(place.slice(2))] as const);
    const missing = SECTIONS.filter(
      ([document, first, last]) =>
        !(`${document} ${first}` in ELSEWHERE) &&
        !lines.some(([cites, line]) => cites === document && line >= first && line <= last),
    );
    expect(missing).toEqual([]);
  });

  test("for every decision, and for none that there is not", () => {
    const decisions = new Set(
      cited()
        .filter((place) => place.startsWith("D "))
        .map((place) => place.slice(2)),
    );
    const known = new Set(DECISIONS);
    expect([...decisions].filter((name) => !known.has(name))).toEqual([]);
    expect(DECISIONS.filter((name) => !decisions.has(name) && !(`D ${name}` in ELSEWHERE))).toEqual([]);
  });

  test("for every route, status, parameter and field of the OpenAPI document", () => {
    const { statuses, parameters, fields } = world.coverage.gaps(world.document);
    expect({ parameters, fields }).toEqual({ parameters: [], fields: [] });
    expect(statuses.toSorted()).toEqual(Object.keys(NOT_BROUGHT_ABOUT).filter(isDocumented).toSorted());
  });
});

function isDocumented(answer: string): boolean {
  const [, key = "", status = ""] = /^(.*) (\d+)$/.exec(answer) ?? [];
  return status in world.document.operation(key).responses;
}
