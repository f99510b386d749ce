import { and, asc, desc, eq, getTableColumns, gte, lt, lte, sql } from "drizzle-orm";
import type { Db } from "../db/open.ts";
import { logChunks, logHeads } from "../db/schema.ts";

/** The log's queries, prepared once. */
export function prepareStatements(db: Db) {
  const p = sql.placeholder;
  const { environmentId: _, ...headColumns } = getTableColumns(logHeads);
  const { firstSeq, lastSeq, minAt, maxAt, bytes, lines } = logChunks;
  const ofEnvironment = eq(logChunks.environmentId, p("environmentId"));
  const inRange = and(ofEnvironment, gte(firstSeq, p("from")), lt(firstSeq, p("before")));

  return {
    head: db
      .select(headColumns)
      .from(logHeads)
      .where(eq(logHeads.environmentId, p("environmentId")))
      .prepare(),

    saveHead: db
      .insert(logHeads)
      .values({
        environmentId: p("environmentId"),
        nextSeq: p("nextSeq"),
        headBytes: p("headBytes"),
        tailBytes: p("tailBytes"),
        headEnd: p("headEnd"),
        tailSeq: p("tailSeq"),
        droppedBytes: p("droppedBytes"),
        droppedAt: p("droppedAt"),
        cursor: p("cursor"),
        installationSeq: p("installationSeq"),
        installationGeneration: p("installationGeneration"),
        lastOutput: p("lastOutput"),
      })
      .onConflictDoUpdate({
        target: logHeads.environmentId,
        set: {
          nextSeq: sql`excluded.next_seq`,
          headBytes: sql`excluded.head_bytes`,
          tailBytes: sql`excluded.tail_bytes`,
          headEnd: sql`excluded.head_end`,
          tailSeq: sql`excluded.tail_seq`,
          droppedBytes: sql`excluded.dropped_bytes`,
          droppedAt: sql`excluded.dropped_at`,
          cursor: sql`excluded.cursor`,
          installationSeq: sql`excluded.installation_seq`,
          installationGeneration: sql`excluded.installation_generation`,
          lastOutput: sql`excluded.last_output`,
        },
      })
      .prepare(),

    insert: db
      .insert(logChunks)
      .values({
        environmentId: p("environmentId"),
        firstSeq: p("firstSeq"),
        lastSeq: p("lastSeq"),
        minAt: p("minAt"),
        maxAt: p("maxAt"),
        bytes: p("bytes"),
        lines: p("lines"),
      })
      .prepare(),

    /** Joins a chunk to the one that begins with line `into`. */
    extend: db
      .update(logChunks)
      .set({
        lastSeq: sql`${p("lastSeq")}`,
        minAt: sql`min(${minAt}, ${p("minAt")})`,
        maxAt: sql`max(${maxAt}, ${p("maxAt")})`,
        bytes: sql`${bytes} + ${p("bytes")}`,
        lines: sql`${lines} || ',' || ${p("lines")}`,
      })
      .where(and(ofEnvironment, eq(firstSeq, p("into"))))
      .prepare(),

    remove: db.delete(logChunks).where(inRange).prepare(),

    /** The chunk that line `seq` lies in, when there is one. */
    chunkWith: db
      .select({ firstSeq, lines })
      .from(logChunks)
      .where(and(ofEnvironment, lte(firstSeq, p("seq"))))
      .orderBy(desc(firstSeq))
      .limit(1)
      .prepare(),

    nextChunk: db
      .select({ lastSeq, maxAt, bytes })
      .from(logChunks)
      .where(and(ofEnvironment, gte(firstSeq, p("from"))))
      .orderBy(asc(firstSeq))
      .limit(1)
      .prepare(),

    lastChunkBefore: db
      .select({ firstSeq, maxAt, bytes })
      .from(logChunks)
      .where(inRange)
      .orderBy(desc(firstSeq))
      .limit(1)
      .prepare(),

    lastChunkSince: db
      .select({ firstSeq, lines })
      .from(logChunks)
      .where(and(inRange, gte(maxAt, p("since"))))
      .orderBy(desc(firstSeq))
      .limit(1)
      .prepare(),

    /** Lines of the chunks that lie wholly at or after `since`. */
    countSince: db
      .select({ lines: sql<number>`coalesce(sum(${lastSeq} - ${firstSeq} + 1), 0)` })
      .from(logChunks)
      .where(and(ofEnvironment, gte(minAt, p("since"))))
      .prepare(),

    /** Chunks with lines on both sides of `since`. */
    chunksAround: db
      .select({ firstSeq, lines })
      .from(logChunks)
      .where(and(ofEnvironment, lt(minAt, p("since")), gte(maxAt, p("since"))))
      .prepare(),
  };
}
