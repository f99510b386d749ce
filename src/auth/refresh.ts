import { eq } from "drizzle-orm";
import { audit } from "../audit/audit.ts";
import { type Db, inTransaction, type Tx } from "../db/open.ts";
import { refreshTokens, sessions, users } from "../db/schema.ts";
import { actorOf } from "../http/audit-actor.ts";
import type { Origin } from "../http/context.ts";
import { issueRefreshToken, type RefreshToken, type Sessions } from "./sessions.ts";
import { type Claims, invalidToken } from "./tokens.ts";

/** A client's parallel requests may refresh with the same token: for so long that is no theft. */
const REUSE_GRACE_MS = 30_000;

interface RefreshDeps {
  db: Db;
  now: () => number;
  sessions: Sessions;
}

type Rotation = { kind: "issued" | "repeated"; token: RefreshToken } | { kind: "theft" } | { kind: "gone" };

export interface Refreshed {
  user: typeof users.$inferSelect;
  token: RefreshToken;
}

/**
 * Exchanges a refresh token for its successor.
 *
 * @param claims of a refresh token whose signature and expiry have been checked
 * @throws AppError unauthenticated when its session has ended, or when this is the replay of a stolen
 * token: then the session is ended for the thief and its owner alike (RFC 9700 §4.14.2)
 */
export function refresh({ db, now, sessions: all }: RefreshDeps, claims: Claims, origin: Origin): Refreshed {
  const refreshed = inTransaction(db, (tx) => {
    const at = now();
    const user = tx.select().from(users).where(eq(users.id, claims.sub)).get();
    const rotation: Rotation = user?.isActive ? rotate(tx, claims, at) : { kind: "gone" };
    if (rotation.kind === "theft") all.end(tx, claims.sid);
    const failed = rotation.kind === "theft" || rotation.kind === "gone";
    const entry = {
      action: "auth.refresh",
      targetId: claims.sub,
      outcome: failed ? ("failure" as const) : ("success" as const),
      detail: { session: claims.sid, ...DETAILS[rotation.kind] },
    };
    audit(tx, actorOf(origin, user), entry, at);
    return user && !failed ? { user, token: rotation.token } : null;
  });
  // Thrown only after the commit: the end of the family must stand.
  if (!refreshed) throw invalidToken();
  return refreshed;
}

const DETAILS: Record<Rotation["kind"], Record<string, unknown>> = {
  issued: {},
  repeated: { repeated: true },
  theft: { reason: "refresh_token_reused" },
  gone: { reason: "session_ended" },
};

function rotate(tx: Tx, { jti, sid }: Claims, now: number): Rotation {
  const row = tx
    .select({ token: refreshTokens, session: sessions })
    .from(refreshTokens)
    .innerJoin(sessions, eq(sessions.id, refreshTokens.sessionId))
    .where(eq(refreshTokens.jti, jti))
    .get();
  if (!row || row.session.id !== sid || row.session.expiresAt <= now) return { kind: "gone" };

  const { token, session } = row;
  if (token.successor === null || token.rotatedAt === null) {
    const next = issueRefreshToken(tx, session, now);
    tx.update(refreshTokens)
      .set({ successor: next.jti, rotatedAt: now })
      .where(eq(refreshTokens.jti, jti))
      .run();
    tx.update(sessions).set({ lastUsedAt: now }).where(eq(sessions.id, sid)).run();
    return { kind: "issued", token: next };
  }

  const next = tx.select().from(refreshTokens).where(eq(refreshTokens.jti, token.successor)).get();
  if (!next || next.expiresAt <= now) return { kind: "gone" };
  // Later than the grace, an unused successor means that the answer was lost on the way.
  const harmless = now - token.rotatedAt <= REUSE_GRACE_MS || next.successor === null;
  return harmless ? { kind: "repeated", token: next } : { kind: "theft" };
}
