import {
  CodeChallengeMethod,
  generateCodeVerifier,
  generateState,
  OAuth2Client,
  OAuth2RequestError,
} from "arctic";
import { createRemoteJWKSet, errors, type JWTPayload, jwtVerify } from "jose";
import { AppError } from "../errors.ts";
import type { Logger } from "../lib/logger.ts";

/** Where Google answers (https://accounts.google.com/.well-known/openid-configuration). */
export interface GoogleEndpoints {
  authorize: string;
  token: string;
  keys: string;
  /** Google writes it with and without the scheme. */
  issuers: string[];
}

const GOOGLE: GoogleEndpoints = {
  authorize: "https://accounts.google.com/o/oauth2/v2/auth",
  token: "https://oauth2.googleapis.com/token",
  keys: "https://www.googleapis.com/oauth2/v3/certs",
  issuers: ["https://accounts.google.com", "accounts.google.com"],
};

const ANSWER_TIMEOUT_MS = 10_000;
const CLOCK_TOLERANCE_SECONDS = 10;

/** Who Google says it is; the address is verified. */
export interface GoogleIdentity {
  /** Google's id of the account: the one thing about it that never changes. */
  sub: string;
  email: string;
  name: string | null;
  picture: string | null;
}

/** What the browser keeps between leaving for Google and coming back. */
export interface GoogleAttempt {
  state: string;
  verifier: string;
  nonce: string;
}

export interface Google {
  /**
   * @throws AppError invalid for a token that is not Google's for us, now, of a verified address;
   * unavailable when Google's keys can't be had
   */
  identify(idToken: string): Promise<GoogleIdentity>;
  /** The browser flow; null without a client secret. */
  browser: GoogleBrowserFlow | null;
}

export interface GoogleBrowserFlow {
  begin(): { url: URL; attempt: GoogleAttempt };
  /** @throws AppError as `identify`, and invalid for a code that Google does not take */
  finish(code: string, attempt: GoogleAttempt): Promise<GoogleIdentity>;
}

interface GoogleOptions {
  /** Whose ID tokens are accepted; the first serves the browser flow. */
  clientIds: string[];
  clientSecret: string | undefined;
  redirectUri: string;
  now: () => number;
  log: Logger;
  endpoints?: GoogleEndpoints;
}

/** Sign-in with Google, or null when it is not configured. */
export function createGoogle(options: GoogleOptions): Google | null {
  const { clientIds, clientSecret, redirectUri, now, log, endpoints = GOOGLE } = options;
  const [browserClient] = clientIds;
  if (browserClient === undefined) return null;
  const keys = createRemoteJWKSet(new URL(endpoints.keys), { timeoutDuration: ANSWER_TIMEOUT_MS });

  function refusal(error: unknown): AppError {
    if (isTokenFault(error)) return invalidGoogleToken(error);
    log.warn("Google sign-in does not work", { error });
    return new AppError("unavailable", "Google can't be reached", { cause: error });
  }

  async function identify(idToken: string, nonce?: string): Promise<GoogleIdentity> {
    const { payload } = await jwtVerify(idToken, keys, {
      issuer: endpoints.issuers,
      audience: clientIds,
      algorithms: ["RS256"],
      requiredClaims: ["sub", "email", "exp"],
      clockTolerance: CLOCK_TOLERANCE_SECONDS,
      currentDate: new Date(now()),
    }).catch((error: unknown) => {
      throw refusal(error);
    });
    if (nonce !== undefined && payload.nonce !== nonce) throw invalidGoogleToken("nonce");
    return identityOf(payload);
  }

  return {
    identify: (idToken) => identify(idToken),
    browser:
      clientSecret === undefined
        ? null
        : browserFlow({
            client: new OAuth2Client(browserClient, clientSecret, redirectUri),
            endpoints,
            identify,
            refusal,
          }),
  };
}

interface BrowserFlowOptions {
  client: OAuth2Client;
  endpoints: GoogleEndpoints;
  identify: (idToken: string, nonce: string) => Promise<GoogleIdentity>;
  refusal: (error: unknown) => AppError;
}

function browserFlow({ client, endpoints, identify, refusal }: BrowserFlowOptions): GoogleBrowserFlow {
  return {
    begin() {
      const attempt = { state: generateState(), verifier: generateCodeVerifier(), nonce: generateState() };
      const url = client.createAuthorizationURLWithPKCE(
        endpoints.authorize,
        attempt.state,
        CodeChallengeMethod.S256,
        attempt.verifier,
        ["openid", "email", "profile"],
      );
      url.searchParams.set("nonce", attempt.nonce);
      return { url, attempt };
    },
    async finish(code, { verifier, nonce }) {
      const answer = client.validateAuthorizationCode(endpoints.token, code, verifier);
      const idToken = await inTime(answer)
        .then((tokens) => tokens.idToken())
        .catch((error: unknown) => {
          throw refusal(error);
        });
      return identify(idToken, nonce);
    },
  };
}

function identityOf({ sub, email, email_verified, name, picture }: JWTPayload): GoogleIdentity {
  if (!sub || typeof email !== "string" || !email.includes("@")) throw invalidGoogleToken("claims");
  if (email_verified !== true) throw invalidGoogleToken("email_verified");
  return {
    sub,
    email,
    name:
      typeof name === "string"
        ? name
            .replace(/\p{Cc}/gu, " ")
            .trim()
            .slice(0, 200) || null
        : null,
    picture: typeof picture === "string" && /^https:\S{1,2000}$/.test(picture) ? picture : null,
  };
}

/** arctic's requests have no limit of their own. */
async function inTime<T>(answer: Promise<T>): Promise<T> {
  const { promise, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(() => reject(new Error("no answer in time")), ANSWER_TIMEOUT_MS);
  try {
    return await Promise.race([answer, promise]);
  } finally {
    clearTimeout(timer);
  }
}

/** Whether it is the token's fault. All else is Google's, the network's or the configuration's. */
function isTokenFault(error: unknown): boolean {
  // An authorization code that is wrong, used or too old (RFC 6749 §5.2).
  if (error instanceof OAuth2RequestError) return error.code === "invalid_grant";
  const isOfKeySet = error instanceof errors.JWKSTimeout || error instanceof errors.JWKSInvalid;
  // The generic code is that of a key set's answer which is not 200 or not JSON.
  return error instanceof errors.JOSEError && !isOfKeySet && error.code !== "ERR_JOSE_GENERIC";
}

function invalidGoogleToken(cause: unknown): AppError {
  return new AppError("invalid", "Invalid Google token", { cause });
}
