import { createHash } from "node:crypto";
import { and, eq, gt } from "drizzle-orm";
import { alphabet, generateRandomString } from "oslo/crypto";
import type { DbOrTx, Tx } from "../db/open.ts";
import { type ACTION_TOKEN_PURPOSES, actionTokens } from "../db/schema.ts";

export type ActionTokenPurpose = (typeof ACTION_TOKEN_PURPOSES)[number];
export type ActionToken = typeof actionTokens.$inferSelect;

/** A six-digit code is guessed at one in 200,000 with so many tries. */
const CODE_TRIES = 5;

interface IssueOptions {
  userId: string;
  /** The address it is sent to. */
  email: string;
  purpose: ActionTokenPurpose;
  lifeMs: number;
}

/** Makes a token for a link and a code to be typed; only hashes are kept. Older ones of its purpose end. */
export function issueActionToken(
  tx: Tx,
  { userId, email, purpose, lifeMs }: IssueOptions,
  now: number,
): { token: string; code: string } {
  dropActionTokens(tx, userId, purpose);
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

/** The token of this user's code, when it is right and not tried too often; every wrong try counts. */
export function tryCode(
  tx: Tx,
  { userId, purpose, code }: { userId: string; purpose: ActionTokenPurpose; code: string },
  now: number,
): ActionToken | undefined {
  const row = tx
    .select()
    .from(actionTokens)
    .where(
      and(
        eq(actionTokens.userId, userId),
        eq(actionTokens.purpose, purpose),
        gt(actionTokens.expiresAt, now),
      ),
    )
    .get();
  if (!row || row.codeTries >= CODE_TRIES) return undefined;
  if (row.codeHash === codeHash(userId, code)) return row;
  tx.update(actionTokens)
    .set({ codeTries: row.codeTries + 1 })
    .where(eq(actionTokens.tokenHash, row.tokenHash))
    .run();
  return undefined;
}

export function dropActionTokens(tx: Tx, userId: string, purpose: ActionTokenPurpose): void {
  tx.delete(actionTokens)
    .where(and(eq(actionTokens.userId, userId), eq(actionTokens.purpose, purpose)))
    .run();
}

function codeHash(userId: string, code: string): string {
  return hash(`${userId}:${code}`);
}

function hash(secret: string): string {
  return createHash("sha256").update(secret).digest("hex");
}
