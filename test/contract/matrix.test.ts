import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { SignJWT } from "jose";
import { TestServer } from "../harness.ts";
import { Coverage } from "./coverage.ts";
import { ApiDocument, type Operation } from "./document.ts";
import { type Person, Site } from "./site.ts";

/*
 * Who may do what: every route × who asks, each cell's status. The owner's things carry marks that may be in
 * nobody else's answers, an administrator's view of accounts and audit excepted.
 */

const ASKERS = [
  "nobody",
  "expired",
  "refresh",
  "revoked",
  "deactivated",
  "stranger",
  "owner",
  "admin",
] as const;
type Asker = (typeof ASKERS)[number];

/** Statuses in the order of ASKERS. */
type Cells = readonly [number, number, number, number, number, number, number, number];

/** What is open to all: the same whoever asks. */
const open = (status: number): Cells => [status, status, status, status, status, status, status, status];
/** What needs someone who is signed in. */
const signedIn = (stranger: number, owner: number, admin: number): Cells => [
  401,
  401,
  401,
  401,
  401,
  stranger,
  owner,
  admin,
];
const ofOneself = (status: number) => signedIn(status, status, status);
const ofTheOwner = (status: number) => signedIn(404, status, 404);
const ofAdmins = (status: number) => signedIn(403, 403, status);
const ENVIRONMENT = "/api/v1/environments/{environment_id}";

/** The order of the rows is that of the calls; what takes things away comes last. */
const MATRIX: Record<string, Cells> = {
  "GET /health": open(200),
  "GET /health/ready": open(200),
  "GET /health/live": open(200),
  "GET /api/v1/info": open(200),
  "GET /verify-email": open(200),
  "POST /verify-email": open(400),
  "GET /reset-password": open(200),
  "POST /reset-password": open(400),
  "POST /api/v1/auth/register": open(422),
  "POST /api/v1/auth/login": open(422),
  "POST /api/v1/auth/refresh": open(422),
  "POST /api/v1/auth/google": open(422),
  "GET /api/v1/auth/google/login": open(503),
  "GET /api/v1/auth/google/callback": open(503),
  "POST /api/v1/auth/forgot-password": open(422),
  "POST /api/v1/auth/reset-password": open(422),
  // Access tokens are looked at where there is no link's. The administrator is verified already.
  "POST /api/v1/auth/verify-email": [422, 401, 401, 401, 401, 200, 200, 400],
  "POST /api/v1/auth/resend-verification": signedIn(200, 200, 400),
  "GET /api/v1/auth/me": ofOneself(200),
  "GET /api/v1/users/me": ofOneself(200),
  "PUT /api/v1/users/me": ofOneself(200),
  "PUT /api/v1/users/me/password": ofOneself(422),
  "GET /api/v1/users/me/sessions": ofOneself(200),
  "GET /api/v1/users": ofAdmins(200),
  "PUT /api/v1/users/{user_id}": ofAdmins(200),
  "GET /api/v1/audit": ofAdmins(200),
  "GET /api/v1/audit/export": ofAdmins(200),
  "GET /api/v1/templates": ofOneself(200),
  "POST /api/v1/templates": ofAdmins(422),
  "POST /api/v1/templates/initialize": ofAdmins(200),
  "GET /api/v1/templates/{template_id}": ofOneself(200),
  "PUT /api/v1/templates/{template_id}": ofAdmins(200),
  "GET /api/v1/clusters": ofAdmins(200),
  "POST /api/v1/clusters": ofAdmins(422),
  "GET /api/v1/clusters/regions": ofAdmins(200),
  "GET /api/v1/clusters/{cluster_id}": ofAdmins(200),
  "GET /api/v1/clusters/{cluster_id}/health": ofAdmins(200),
  "PUT /api/v1/clusters/{cluster_id}": ofAdmins(200),
  "DELETE /api/v1/clusters/{cluster_id}": ofAdmins(409),
  "GET /api/v1/environments": ofOneself(200),
  "POST /api/v1/environments": ofOneself(422),
  [`GET ${ENVIRONMENT}`]: ofTheOwner(200),
  [`PUT ${ENVIRONMENT}`]: ofTheOwner(200),
  [`GET ${ENVIRONMENT}/metrics`]: ofTheOwner(200),
  [`GET ${ENVIRONMENT}/logs`]: ofTheOwner(200),
  [`GET ${ENVIRONMENT}/terminals`]: ofTheOwner(200),
  [`DELETE ${ENVIRONMENT}/terminals/{session_id}`]: ofTheOwner(404),
  "GET /api/v1/ws/terminal/{environment_id}": open(426),
  "GET /api/v1/ws/logs/{environment_id}": open(426),
  "POST /api/v1/ws/ticket": ofOneself(200),
  [`POST ${ENVIRONMENT}/start`]: ofTheOwner(400),
  [`POST ${ENVIRONMENT}/recover`]: ofTheOwner(400),
  [`POST ${ENVIRONMENT}/restart`]: ofTheOwner(200),
  [`POST ${ENVIRONMENT}/stop`]: ofTheOwner(200),
  [`DELETE ${ENVIRONMENT}`]: ofTheOwner(204),
  "DELETE /api/v1/templates/{template_id}": ofAdmins(200),
  "DELETE /api/v1/users/me/sessions/{session_id}": ofTheOwner(204),
  "POST /api/v1/auth/logout": ofOneself(200),
  "DELETE /api/v1/users/me": signedIn(200, 200, 409),
};

/** Where an administrator may see other people's names. */
const ADMINISTRATION = /^(GET|PUT) \/api\/v1\/(users|audit)/;

let server: TestServer;
let site: Site;
let document: ApiDocument;
let people: Record<Exclude<Asker, "nobody" | "expired" | "refresh">, Person>;
let tokens: Record<Asker, string | undefined>;
let params: Record<string, string>;
let marks: string[];

beforeAll(async () => {
  server = await TestServer.start();
  document = await ApiDocument.of(server.url);
  site = new Site(server, document, new Coverage());
  people = {
    admin: await site.signIn("admin", TestServer.adminPassword),
    owner: await site.person("the-owner"),
    stranger: await site.person("a-stranger"),
    revoked: await site.person("someone-revoked"),
    deactivated: await site.person("someone-away"),
  };
  const { admin, owner, revoked, deactivated } = people;
  await site.call("POST /api/v1/auth/logout", { as: revoked, status: 200 });
  const away = { as: admin, params: { user_id: deactivated.id }, body: { is_active: false }, status: 200 };
  await site.call("PUT /api/v1/users/{user_id}", away);
  const environment_id = await site.environment(owner, {
    name: "secret-name",
    description: "secret-description",
    environment_variables: { MARK: "secret-value" },
  });
  const other = await site.signIn(owner.username, owner.password);
  const { body: sessions } = await site.call("GET /api/v1/users/me/sessions", { as: other, status: 200 });
  params = {
    environment_id,
    user_id: people.stranger.id,
    template_id: "ubuntu",
    cluster_id: "local",
    // Of the owner's first sign-in there is another since.
    session_id: sessions[0].id,
  };
  marks = ["secret-", owner.email, owner.id, environment_id];
  tokens = {
    nobody: undefined,
    expired: await expiredTokenOf(owner),
    refresh: owner.refreshToken,
    revoked: revoked.token,
    deactivated: deactivated.token,
    stranger: people.stranger.token,
    owner: owner.token,
    admin: admin.token,
  };
}, 30_000);
afterAll(() => server?.stop());

/** The owner's token as it will be in an hour. */
async function expiredTokenOf({ token }: Person): Promise<string> {
  const secret = (await Bun.file(`${server.dataDir}/keys/jwt`).text()).trim();
  const claims = JSON.parse(Buffer.from(token.split(".")[1] ?? "", "base64url").toString());
  return new SignJWT({ ...claims, iat: claims.iat - 7200, exp: claims.exp - 7200 })
    .setProtectedHeader({ alg: "HS256", typ: "JWT" })
    .sign(new TextEncoder().encode(secret));
}

/** For what ends the session: that of another sign-in. */
async function freshToken(asker: Asker): Promise<string | undefined> {
  if (asker !== "stranger" && asker !== "owner" && asker !== "admin") return tokens[asker];
  return (await site.signIn(people[asker].username, people[asker].password)).token;
}

interface Cell {
  status: number;
  text: string;
  type: string;
}

/** The answer to an empty request: who may not is refused before anyone looks at its body. */
async function ask(operation: Operation, asker: Asker): Promise<Cell> {
  const token = operation.operationId === "logout" ? await freshToken(asker) : tokens[asker];
  const isForm = operation.requestBody !== undefined && operation.body === undefined;
  const response = await site.send(operation, {
    params,
    ...(token && { as: token }),
    headers: { Prefer: "wait=20" },
    ...(operation.body && { body: {} }),
    ...(isForm && { raw: { text: "token=x", type: "application/x-www-form-urlencoded" } }),
  });
  const type = response.headers.get("content-type") ?? "";
  return { status: response.status, text: await response.text(), type };
}

describe("who may do what", () => {
  test("the matrix has every route of the server, and no other", () => {
    expect(Object.keys(MATRIX).toSorted()).toEqual([...document.operations.keys()].toSorted());
  });

  for (const [key, cells] of Object.entries(MATRIX)) {
    test(`${key}: ${[...new Set(cells)].join(", ")}`, async () => {
      const operation = document.operation(key);
      const got: Record<string, number> = {};
      for (const asker of ASKERS) {
        const answer = await ask(operation, asker);
        got[asker] = answer.status;
        expect(document.faults(operation, answer)).toEqual([]);
        const mayKnow = asker === "owner" || (asker === "admin" && ADMINISTRATION.test(key));
        const withoutPath = answer.text.replaceAll(/"path":"[^"]*"/g, "");
        if (!mayKnow)
          for (const mark of marks)
            expect([asker, withoutPath]).not.toEqual([asker, expect.stringContaining(mark)]);
      }
      expect(got).toEqual(Object.fromEntries(ASKERS.map((asker, index) => [asker, cells[index] ?? 0])));
    });
  }

  test("no WebSocket opens for whoever may not, and none shows another's data", async () => {
    for (const path of ["terminal", "logs"]) {
      for (const asker of ASKERS.filter((one) => one !== "owner" && one !== "nobody")) {
        const socket = await site.socket(
          `/api/v1/ws/${path}/${params.environment_id}?token=${tokens[asker]}`,
        );
        expect([asker, (await socket.closes()).code]).toEqual([asker, 1008]);
        expect(socket.messages.map(({ type }) => type)).toEqual(["error"]);
      }
    }
  });
});
