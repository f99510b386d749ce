import { asc, eq, lte, sql } from "drizzle-orm";
import type { Db, Tx } from "../db/open.ts";
import { outbox } from "../db/schema.ts";
import { type Backoff, backoffMs } from "../lib/backoff.ts";
import { newId } from "../lib/ids.ts";
import { lazily } from "../lib/lazily.ts";
import type { Logger } from "../lib/logger.ts";
import { type Letter, render } from "./message.ts";
import { isRefusedRecipient, logTransport, smtpTransport } from "./transport.ts";

/** A slow mail server is not asked for more than this at a time. */
const SENDING_AT_ONCE = 4;
const RETRY: Backoff = { baseMs: 10_000, maxMs: 30 * 60_000 };
/** Longer than a weekend without a mail server. */
const GIVE_UP_MS = 3 * 86_400_000;
const STOP_GRACE_MS = 3000;
/** A clock that was set back must not put the outbox to sleep for long. */
const LONGEST_SLEEP_MS = 3_600_000;

type OutboxRow = typeof outbox.$inferSelect;

export interface Mailer {
  /** Whether messages reach anyone's mailbox; without SMTP_URL their links are lines of the log. */
  readonly isConfigured: boolean;
  /** Puts a message into the outbox, inside the caller's transaction: it is sent if and only if that commits. */
  enqueue(tx: Tx, letter: Letter): void;
  /** Forgets what has not been sent yet of what is about this user, whatever address it goes to. */
  forget(tx: Tx, userId: string): void;
  /** Begins to send, what an earlier run has left over first. */
  start(): void;
  /** Lets what is being sent end, for a short while; the rest stays in the outbox. */
  stop(): Promise<void>;
  /** Looks at the outbox now; new mail does that by itself. */
  wake(): void;
}

interface MailerOptions {
  db: Db;
  config: { smtpUrl: URL | undefined; from: string };
  log: Logger;
  now: () => number;
  retry?: Backoff;
  smtpStepTimeoutMs?: number;
}

/**
 * Sends mail from a durable outbox: a mail server that is down loses nothing and holds up no request. A
 * message whose sending was cut off by a crash may arrive twice, never not at all; a database that can't be
 * written sends nothing twice.
 */
export function createMailer(options: MailerOptions): Mailer {
  const { db, config, log, now, retry = RETRY, smtpStepTimeoutMs: stepTimeoutMs } = options;
  const transport = config.smtpUrl
    ? smtpTransport({ url: config.smtpUrl, from: config.from, stepTimeoutMs })
    : logTransport(log);
  const dueRows = lazily(() =>
    db
      .select()
      .from(outbox)
      .where(lte(outbox.nextAttemptAt, sql.placeholder("now")))
      .orderBy(asc(outbox.nextAttemptAt), asc(outbox.id))
      .limit(SENDING_AT_ONCE)
      .prepare(),
  );
  const nextRow = lazily(() =>
    db.select().from(outbox).orderBy(asc(outbox.nextAttemptAt)).limit(1).prepare(),
  );

  let isStarted = false;
  let round: Promise<void> | undefined;
  let timer: ReturnType<typeof setTimeout> | undefined;
  /** Rounds that the database has cut short, in a row. */
  let failedRounds = 0;
  /** Handed over or given up, though their rows could not be deleted: they are not to be sent again. */
  const settled = new Set<string>();

  async function deliver(row: OutboxRow): Promise<void> {
    if (!settled.has(row.id)) {
      try {
        await transport.send(row);
        log.debug("mail sent", { mail: row.id, attempts: row.attempts + 1 });
      } catch (error) {
        const isHopeless = isRefusedRecipient(error) || now() - row.createdAt >= GIVE_UP_MS;
        if (!isHopeless) return postpone(row, error);
        const attempts = row.attempts + 1;
        log.error("mail could not be sent and is given up", { mail: row.id, attempts, error });
      }
      settled.add(row.id);
    }
    db.delete(outbox).where(eq(outbox.id, row.id)).run();
    settled.delete(row.id);
  }

  function postpone({ id, attempts }: OutboxRow, error: unknown): void {
    const lastError = error instanceof Error ? error.message : String(error);
    const delayMs = backoffMs(retry, attempts + 1);
    db.update(outbox)
      .set({ attempts: attempts + 1, nextAttemptAt: now() + delayMs, lastError })
      .where(eq(outbox.id, id))
      .run();
    log.warn("mail could not be sent and will be tried again", { mail: id, delay_ms: delayMs, error });
  }

  /** @throws what the database does, when all that was begun has ended */
  async function sendDue(): Promise<void> {
    for (;;) {
      const rows = isStarted ? dueRows().all({ now: now() }) : [];
      if (rows.length === 0) return;
      const results = await Promise.allSettled(rows.map(deliver));
      for (const result of results) if (result.status === "rejected") throw result.reason;
    }
  }

  /** How long until there is something to send; undefined while the outbox is empty. */
  function sleepMs(): number | undefined {
    const next = isStarted ? nextRow().get() : undefined;
    return next && Math.min(LONGEST_SLEEP_MS, Math.max(0, next.nextAttemptAt - now()));
  }

  async function work(): Promise<void> {
    let delayMs: number | undefined;
    try {
      await sendDue();
      delayMs = sleepMs();
      failedRounds = 0;
    } catch (error) {
      failedRounds += 1;
      delayMs = backoffMs(retry, failedRounds);
      log.error("the outbox can't be written and will be tried again", { delay_ms: delayMs, error });
    }
    // Nothing is awaited since the look at what comes next: later mail finds no round and begins one.
    round = undefined;
    if (isStarted && delayMs !== undefined) timer = setTimeout(wake, delayMs);
  }

  function wake(): void {
    if (!isStarted || round) return;
    clearTimeout(timer);
    round = work();
  }

  return {
    isConfigured: config.smtpUrl !== undefined,
    enqueue(tx, letter) {
      const at = now();
      tx.insert(outbox)
        .values({
          id: newId(at),
          userId: letter.userId,
          ...render(letter),
          createdAt: at,
          nextAttemptAt: at,
        })
        .run();
      // The transaction is synchronous: by then it has been committed or rolled back.
      queueMicrotask(wake);
    },
    forget(tx, userId) {
      tx.delete(outbox).where(eq(outbox.userId, userId)).run();
    },
    start() {
      isStarted = true;
      if (!config.smtpUrl)
        log.warn("SMTP_URL is not set: links that would be mailed are written to this log");
      wake();
    },
    async stop() {
      isStarted = false;
      clearTimeout(timer);
      if (round) await Promise.race([round, Bun.sleep(STOP_GRACE_MS)]);
    },
    wake,
  };
}
