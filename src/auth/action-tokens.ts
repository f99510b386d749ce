import { createHash } from "node:crypto";
import { and, desc, eq, gt, type SQL, sum } from "drizzle-orm";
import { alphabet, generateRandomString } from "oslo/crypto";
import type { DbOrTx, Tx } from "../db/open.ts";
import { type ACTION_TOKEN_PURPOSES, actionTokens } from "../db/schema.ts";

export type ActionTokenPurpose = (typeof ACTION_TOKEN_PURPOSES)[number];
export type ActionToken = typeof actionTokens.$inferSelect;

const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
const DAY_MS = 24 * HOUR_MS;

/** A six-digit code is guessed at one in 200,000 with so many tries. */
const CODE_TRIES = 5;
/** However many codes are sent: then only the link counts. */
const CODE_TRIES_A_DAY = 15;

/** Tokens that are used or expired tell for so long what was sent and tried. */
export const ACTION_TOKENS_KEPT_MS = DAY_MS;

/** What is sent for one account: more would flood a mailbox, which need not even be its owner's. */
const SEND_LIMITS: Record<ActionTokenPurpose, readonly { messages: number; withinMs: number }[]> = {
  // The first comes by itself with a registration or a new address.
  verify_email: [{ messages: 6, withinMs: HOUR_MS }],
  reset_password: [
    { messages: 1, withinMs: MINUTE_MS },
    { messages: 5, withinMs: HOUR_MS },
  ],
};

interface IssueOptions {
  userId: string;
  /** The address it is sent to. */
  email: string;
  purpose: ActionTokenPurpose;
  lifeMs: number;
}

/** How long until another message of this purpose may be sent for the user; 0: now. */
export function sendWaitMs(db: DbOrTx, userId: string, purpose: ActionTokenPurpose, now: number): number {
  const sent = db
    .select({ at: actionTokens.createdAt })
    .from(actionTokens)
    .where(and(ofUser(userId, purpose), gt(actionTokens.createdAt, now - HOUR_MS)))
    .orderBy(desc(actionTokens.createdAt))
    .all();
  const waits = SEND_LIMITS[purpose].map(({ messages, withinMs }) => {
    const oldest = sent[messages - 1];
    return oldest ? oldest.at + withinMs - now : 0;
  });
  return Math.max(0, ...waits);
}

/** Makes a token for a link and a code to be typed; only hashes are kept. */
export function issueActionToken(
  tx: Tx,
  { userId, email, purpose, lifeMs }: IssueOptions,
  now: number,
): { token: string; code: string } {
  const token = Buffer.from(crypto.getRandomValues(new Uint8Array(32))).toString("base64url");
  const code = generateRandomString(6, alphabet("0-9"));
  tx.insert(actionTokens)
    .values({
      tokenHash: hash(token),
      userId,
      purpose,
      codeHash: codeHash(userId, code),
      email,
      createdAt: now,
      expiresAt: now + lifeMs,
    })
    .run();
  return { token, code };
}

export function findActionToken(
  db: DbOrTx,
  purpose: ActionTokenPurpose,
  token: string,
  now: number,
): ActionToken | undefined {
  return db
    .select()
    .from(actionTokens)
    .where(
      and(
        eq(actionTokens.tokenHash, hash(token)),
        eq(actionTokens.purpose, purpose),
        gt(actionTokens.expiresAt, now),
      ),
    )
    .get();
}

/**
 * The token of this user's code, when it is right and not tried too often; every wrong try counts. Of a
 * purpose with codes one token lives at a time.
 */
export function tryCode(
  tx: Tx,
  { userId, purpose, code }: { userId: string; purpose: ActionTokenPurpose; code: string },
  now: number,
): ActionToken | undefined {
  const row = tx
    .select()
    .from(actionTokens)
    .where(and(ofUser(userId, purpose), gt(actionTokens.expiresAt, now)))
    .get();
  if (!row || row.codeTries >= CODE_TRIES) return undefined;
  if (triesOfDay(tx, { userId, purpose }, now) >= CODE_TRIES_A_DAY) return undefined;
  if (row.codeHash === codeHash(userId, code)) return row;
  tx.update(actionTokens)
    .set({ codeTries: row.codeTries + 1 })
    .where(eq(actionTokens.tokenHash, row.tokenHash))
    .run();
  return undefined;
}

function triesOfDay(
  db: DbOrTx,
  { userId, purpose }: { userId: string; purpose: ActionTokenPurpose },
  now: number,
): number {
  const row = db
    .select({ tries: sum(actionTokens.codeTries).mapWith(Number) })
    .from(actionTokens)
    .where(and(ofUser(userId, purpose), gt(actionTokens.createdAt, now - DAY_MS)))
    .get();
  return row?.tries ?? 0;
}

/** Ends all links and codes of this purpose. */
export function endActionTokens(tx: Tx, userId: string, purpose: ActionTokenPurpose, now: number): void {
  tx.update(actionTokens)
    .set({ expiresAt: now })
    .where(and(ofUser(userId, purpose), gt(actionTokens.expiresAt, now)))
    .run();
}

function ofUser(userId: string, purpose: ActionTokenPurpose): SQL | undefined {
  return and(eq(actionTokens.userId, userId), eq(actionTokens.purpose, purpose));
}

function codeHash(userId: string, code: string): string {
  return hash(`${userId}:${code}`);
}

function hash(secret: string): string {
  return createHash("sha256").update(secret).digest("hex");
}
