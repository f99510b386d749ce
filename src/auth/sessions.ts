import { and, desc, eq, gt, not, type SQL, sql } from "drizzle-orm";
import type { Db, Tx } from "../db/open.ts";
import { refreshTokens, sessions, users } from "../db/schema.ts";
import type { Actor, Origin } from "../http/context.ts";
import { newId } from "../lib/ids.ts";
import { lazily } from "../lib/lazily.ts";

const DAY_MS = 86_400_000;
/** A refresh token's life: each refresh begins it again. */
export const REFRESH_TOKEN_MS = 7 * DAY_MS;
/** However often it is refreshed, a sign-in ends after this. */
const SESSION_MS = 30 * DAY_MS;

/** A refresh token as it is stored: enough to sign it again. */
export interface RefreshToken {
  sessionId: string;
  jti: string;
  issuedAt: number;
  expiresAt: number;
}

export interface Sessions {
  /** Who asks with a token of this session; undefined when it has ended or its user is not active. */
  findActor(sessionId: string): Actor | undefined;
  /** Begins a session for a user who has just proven who they are. */
  begin(tx: Tx, userId: string, origin: Origin): RefreshToken;
  end(tx: Tx, sessionId: string): void;
  endAll(tx: Tx, userId: string): void;
  /** Ends those whose time is over, so that their sockets end too. */
  endExpired(tx: Tx): void;
  list(userId: string): SessionRow[];
}

export type SessionRow = typeof sessions.$inferSelect;

interface SessionsOptions {
  db: Db;
  now: () => number;
  /** Told after the commit, once for each session that has ended before its time: its sockets close. */
  onSessionEnded: (sessionId: string) => void;
}

export function createSessions({ db, now, onSessionEnded }: SessionsOptions): Sessions {
  const findActor = lazily(() =>
    db
      .select({
        userId: users.id,
        sessionId: sessions.id,
        username: users.username,
        email: users.email,
        role: users.role,
        plan: users.plan,
        isVerified: users.isVerified,
      })
      .from(sessions)
      .innerJoin(users, eq(users.id, sessions.userId))
      .where(
        and(
          eq(sessions.id, sql.placeholder("id")),
          gt(sessions.expiresAt, sql.placeholder("now")),
          eq(users.isActive, true),
        ),
      )
      .prepare(),
  );

  /** Transactions are synchronous: a microtask runs after the commit, or after a rollback that kept the row. */
  function tellEnded(ended: { id: string }[]): void {
    queueMicrotask(() => {
      for (const { id } of ended) if (!findActor().get({ id, now: now() })) onSessionEnded(id);
    });
  }

  return {
    findActor: (sessionId) => findActor().get({ id: sessionId, now: now() }),

    begin(tx, userId, { ip, userAgent }) {
      const at = now();
      const id = newId(at);
      tx.insert(sessions)
        .values({ id, userId, createdAt: at, lastUsedAt: at, expiresAt: at + SESSION_MS, ip, userAgent })
        .run();
      return issueRefreshToken(tx, { id, expiresAt: at + SESSION_MS }, at);
    },

    end(tx, sessionId) {
      tellEnded(tx.delete(sessions).where(eq(sessions.id, sessionId)).returning({ id: sessions.id }).all());
    },

    endAll(tx, userId) {
      const ended = tx.delete(sessions).where(eq(sessions.userId, userId)).returning({ id: sessions.id });
      tellEnded(ended.all());
    },

    endExpired(tx) {
      const expired = not(usable(now()));
      tellEnded(tx.delete(sessions).where(expired).returning({ id: sessions.id }).all());
    },

    list: (userId) =>
      db
        .select()
        .from(sessions)
        .where(and(eq(sessions.userId, userId), usable(now())))
        .orderBy(desc(sessions.id))
        .all(),
  };
}

/** Of a session that can still be refreshed. */
function usable(now: number): SQL {
  return sql`(${sessions.expiresAt} > ${now} and ${sessions.lastUsedAt} > ${now - REFRESH_TOKEN_MS})`;
}

/** Stores a new refresh token of the session; it never outlives it. */
export function issueRefreshToken(
  tx: Tx,
  session: { id: string; expiresAt: number },
  now: number,
): RefreshToken {
  const token = {
    sessionId: session.id,
    jti: crypto.randomUUID(),
    issuedAt: now,
    expiresAt: Math.min(now + REFRESH_TOKEN_MS, session.expiresAt),
  };
  tx.insert(refreshTokens).values(token).run();
  return token;
}
