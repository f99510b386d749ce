import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { desc, eq } from "drizzle-orm";
import { createAdmin } from "../../src/auth/administrators.ts";
import { createGoogle, type GoogleEndpoints } from "../../src/auth/google.ts";
import { createGoogleRoutes, GOOGLE_CALLBACK_PATH } from "../../src/auth/google-routes.ts";
import { createGuard } from "../../src/auth/guard.ts";
import { createPageRoutes } from "../../src/auth/page-routes.ts";
import { createPasswords } from "../../src/auth/passwords.ts";
import { createRecoveryRoutes } from "../../src/auth/recovery-routes.ts";
import { createAuthRoutes } from "../../src/auth/routes.ts";
import { createSessions } from "../../src/auth/sessions.ts";
import { createTokens } from "../../src/auth/tokens.ts";
import { openDatabase } from "../../src/db/open.ts";
import { auditLog, outbox } from "../../src/db/schema.ts";
import { answerError } from "../../src/http/errors.ts";
import { newRouter } from "../../src/http/router.ts";
import { createLogger } from "../../src/lib/logger.ts";
import { createMailer } from "../../src/mail/mailer.ts";
import { createAuditRoutes } from "../../src/users/audit-routes.ts";
import type { UserEvent } from "../../src/users/events.ts";
import { createUserRoutes } from "../../src/users/routes.ts";

export const SECRET = "a secret of the tests, long enough to sign";
export const PASSWORD = "correct horse battery";
/** argon2id's least: OWASP's would be a third of what these tests take. */
const CHEAP = { memoryCost: 8, timeCost: 1 };

interface AccountsOptions {
  registration?: "open" | "closed";
  smtpUrl?: URL;
  google?: { endpoints: GoogleEndpoints; clientIds: string[]; clientSecret?: string };
}

/** The accounts of a server on a database file of its own, with a clock that a test may move. */
export function openAccounts({ registration = "open", smtpUrl, google: googleAt }: AccountsOptions = {}) {
  const folder = mkdtempSync(join(tmpdir(), "devpocket-accounts-"));
  const database = openDatabase(join(folder, "devpocket.db"));
  const { db } = database;
  let offsetMs = 0;
  // Real time and an offset: the JWT library looks at the real clock too.
  const now = () => Date.now() + offsetMs;
  const logged: string[] = [];
  const log = createLogger({ format: "text", level: "debug", write: (line) => void logged.push(line) });
  const ended: string[] = [];
  const passwords = createPasswords({ cost: CHEAP });
  const tokens = createTokens({ secret: SECRET, now });
  const sessions = createSessions({ db, now, onSessionEnded: (id) => void ended.push(id) });
  const guard = createGuard({ tokens, sessions });
  // Not started: what would be sent stays in the outbox, where tests read it.
  const mailer = createMailer({ db, config: { smtpUrl, from: "DevPocket" }, log, now });
  const baseUrl = "https://devpocket.example.org";
  const torn: string[] = [];
  const stopped: string[] = [];
  const google = createGoogle({
    clientIds: googleAt?.clientIds ?? [],
    clientSecret: googleAt?.clientSecret,
    redirectUri: baseUrl + GOOGLE_CALLBACK_PATH,
    now,
    log,
    ...(googleAt && { endpoints: googleAt.endpoints }),
  });
  let deletionFails = false;
  const onUserDeleted: UserEvent = (_tx, userId) => {
    if (deletionFails) throw new Error("the environments can't be told");
    torn.push(userId);
  };
  const onUserDeactivated: UserEvent = (_tx, userId) => void stopped.push(userId);
  const deps = {
    db,
    now,
    log,
    registration,
    passwords,
    tokens,
    sessions,
    guard,
    mailer,
    baseUrl,
    onUserDeleted,
    onUserDeactivated,
    google,
  };

  const app = newRouter();
  app.onError(answerError(log));
  app.use(async (c, next) => {
    c.set("origin", { requestId: "req-1", ip: "203.0.113.7", userAgent: c.req.header("user-agent") ?? null });
    await next();
  });
  const routers = [
    createAuthRoutes(deps),
    createRecoveryRoutes(deps),
    createGoogleRoutes(deps),
    createPageRoutes(deps),
    createUserRoutes(deps),
    createAuditRoutes(deps),
  ];
  for (const router of routers) app.route("/", router);

  async function call(
    method: string,
    path: string,
    { body, token, headers }: { body?: unknown; token?: string; headers?: Record<string, string> } = {},
  ): Promise<Answer> {
    const response = await app.request(path, {
      method,
      headers: {
        ...(body !== undefined && { "content-type": "application/json" }),
        ...(token !== undefined && { authorization: `Bearer ${token}` }),
        ...headers,
      },
      ...(body !== undefined && { body: typeof body === "string" ? body : JSON.stringify(body) }),
    });
    const text = await response.text();
    const isJson = response.headers.get("content-type")?.startsWith("application/json");
    return {
      status: response.status,
      headers: response.headers,
      text,
      body: isJson ? JSON.parse(text) : null,
    };
  }

  return {
    ...deps,
    sqlite: database.sqlite,
    app,
    routers,
    call,
    /** Ids that the callbacks were told: of sessions, and of users deleted and deactivated. */
    ended,
    torn,
    stopped,
    logged,
    deletionFails(fails: boolean) {
      deletionFails = fails;
    },
    advance(ms: number) {
      offsetMs += ms;
    },
    /** What waits to be sent to this recipient, newest first. */
    mailTo: (recipient: string) =>
      db.select().from(outbox).where(eq(outbox.recipient, recipient)).orderBy(desc(outbox.id)).all(),
    auditRows: () => db.select().from(auditLog).orderBy(auditLog.id).all(),
    async register(username: string, password = PASSWORD) {
      const body = { username, email: `${username}@example.com`, password };
      return call("POST", "/api/v1/auth/register", { body });
    },
    async signIn(username: string, password = PASSWORD): Promise<Answer> {
      return call("POST", "/api/v1/auth/login", { body: { username_or_email: username, password } });
    },
    /** A signed-in administrator's access token. */
    async admin(username = "root"): Promise<string> {
      await createAdmin(deps, { username, email: `${username}@example.com`, password: PASSWORD });
      return (await this.signIn(username)).body.access_token;
    },
    close() {
      database.close();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

export type Accounts = ReturnType<typeof openAccounts>;

export interface Answer {
  status: number;
  headers: Headers;
  text: string;
  // biome-ignore lint/suspicious/noExplicitAny: bodies are compared whole, whatever their shape
  body: any;
}
