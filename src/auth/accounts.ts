import type { Config } from "../config/config.ts";
import type { Db } from "../db/open.ts";
import type { Router } from "../http/router.ts";
import type { Logger } from "../lib/logger.ts";
import type { Mailer } from "../mail/mailer.ts";
import { createGoogle } from "./google.ts";
import { createGoogleRoutes, GOOGLE_CALLBACK_PATH } from "./google-routes.ts";
import { createGuard } from "./guard.ts";
import { createPageRoutes } from "./page-routes.ts";
import { createPasswords } from "./passwords.ts";
import { createRecoveryRoutes } from "./recovery-routes.ts";
import { createAuthRoutes } from "./routes.ts";
import { createSessions } from "./sessions.ts";
import { createTokens } from "./tokens.ts";

interface AccountsOptions {
  db: Db;
  config: Pick<Config, "registration" | "google">;
  jwtSecret: string;
  /** Where links in messages lead to, without a slash at its end. */
  baseUrl: string;
  mailer: Mailer;
  log: Logger;
  now: () => number;
  /** Told after the commit: what belongs to the sign-in session ends. */
  onSessionEnded(sessionId: string): void;
}

export type Accounts = ReturnType<typeof createAccounts>;

/** Puts the room together: who is asking, and how they come to be known. */
export function createAccounts({
  db,
  config,
  jwtSecret,
  baseUrl,
  mailer,
  log,
  now,
  onSessionEnded,
}: AccountsOptions) {
  const passwords = createPasswords();
  const tokens = createTokens({ secret: jwtSecret, now });
  const sessions = createSessions({ db, now, onSessionEnded });
  const guard = createGuard({ tokens, sessions });
  const google = createGoogle({ ...config.google, redirectUri: baseUrl + GOOGLE_CALLBACK_PATH, now, log });
  const { registration } = config;
  const parts = { db, now, registration, baseUrl, mailer, passwords, tokens, sessions, guard };
  const routers: Router[] = [
    createAuthRoutes(parts),
    createRecoveryRoutes(parts),
    createPageRoutes(parts),
    createGoogleRoutes({ ...parts, google }),
  ];
  return { ...parts, hasGoogle: google !== null, routers };
}
