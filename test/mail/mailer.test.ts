import { afterEach, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Db, inTransaction, openDatabase } from "../../src/db/open.ts";
import { outbox } from "../../src/db/schema.ts";
import { createLogger } from "../../src/lib/logger.ts";
import { createMailer } from "../../src/mail/mailer.ts";
import { until } from "../until.ts";
import { openSmtpServer as listen } from "./smtp.ts";

const LETTER = {
  userId: "alice",
  recipient: "alice@example.com",
  subject: "Grüße",
  paragraphs: ["First <words> & more.", "Second."],
  link: { label: "Verify", url: "https://devpocket.example.org/verify-email?token=abc&x=1" },
};

const closers: (() => void | Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

/** A mailer on a database file of its own. */
function openMailer(smtpUrl: string | undefined, { smtpStepTimeoutMs = 5000 } = {}) {
  const folder = mkdtempSync(join(tmpdir(), "devpocket-mail-"));
  const database = openDatabase(join(folder, "devpocket.db"));
  const { db } = database;
  let offsetMs = 0;
  const lines: string[] = [];
  const log = createLogger({ format: "text", level: "debug", write: (line) => void lines.push(line) });
  const options = {
    db,
    config: {
      smtpUrl: smtpUrl === undefined ? undefined : new URL(smtpUrl),
      from: "DevPocket <pocket@example.org>",
    },
    log,
    now: () => Date.now() + offsetMs,
    retry: { baseMs: 20, maxMs: 50 },
    smtpStepTimeoutMs,
  };
  const mailer = createMailer(options);
  closers.push(async () => {
    await mailer.stop();
    database.close();
    rmSync(folder, { recursive: true, force: true });
  });
  return {
    mailer,
    again: () => createMailer(options),
    lines,
    waiting: () => db.select().from(outbox).all(),
    post: (letter = LETTER) => inTransaction(db, (tx) => mailer.enqueue(tx, letter)),
    db,
    advance: (ms: number) => {
      offsetMs += ms;
    },
  };
}

/** A real SMTP server that is closed after the test. */
async function openSmtpServer(...args: Parameters<typeof listen>) {
  const smtp = await listen(...args);
  closers.push(smtp.close);
  return smtp;
}

describe("with a mail server", () => {
  test("a message arrives in both of its forms, and its row goes", async () => {
    const smtp = await openSmtpServer();
    const { mailer, post, waiting } = openMailer(smtp.url);
    mailer.start();
    post();
    await until(() => smtp.received.length === 1 && waiting().length === 0);
    const [message] = smtp.received;
    expect(message?.recipients).toEqual(["alice@example.com"]);
    expect(message?.raw).toContain("From: DevPocket <pocket@example.org>");
    expect(message?.raw).toContain("Subject: =?UTF-8?");
    expect(message?.raw).toContain("Content-Type: text/plain");
    expect(message?.raw).toContain("Content-Type: text/html");
    expect(message?.raw).toContain("First &lt;words&gt; &amp; more.");
    expect(message?.raw).toContain("First <words> & more.");
  });

  test("nothing is sent of a transaction that was rolled back", async () => {
    const smtp = await openSmtpServer();
    const { mailer, db, post } = openMailer(smtp.url);
    mailer.start();
    const failing = () =>
      inTransaction(db, (tx) => {
        mailer.enqueue(tx, { ...LETTER, recipient: "nobody@example.com" });
        throw new Error("rolled back");
      });
    expect(failing).toThrow("rolled back");
    post();
    await until(() => smtp.received.length > 0);
    expect(smtp.received.map(({ recipients }) => recipients)).toEqual([["alice@example.com"]]);
  });

  test("an address that looks like two is refused, not split", async () => {
    const smtp = await openSmtpServer();
    const { mailer, post, lines } = openMailer(smtp.url);
    mailer.start();
    post({ ...LETTER, recipient: "alice@example.com, mallory@example.com" });
    await until(() => smtp.received.length > 0 || lines.some((line) => line.includes("could not be sent")));
    expect(smtp.received.flatMap(({ recipients }) => recipients)).not.toContain("mallory@example.com");
  });

  test("fifty messages arrive once each", async () => {
    const smtp = await openSmtpServer();
    const { mailer, post, waiting } = openMailer(smtp.url);
    mailer.start();
    const recipients = Array.from({ length: 50 }, (_, n) => `user${n}@example.com`);
    for (const recipient of recipients) post({ ...LETTER, recipient });
    await until(() => waiting().length === 0, { timeoutMs: 20_000 });
    expect(smtp.received.flatMap((message) => message.recipients).sort()).toEqual(recipients.sort());
  });
});

describe("a mail server in trouble", () => {
  test("that is down gets its mail when it is back, also after a restart of ours", async () => {
    const gone = await openSmtpServer();
    await gone.close();
    const { mailer, again, post, waiting } = openMailer(gone.url);
    mailer.start();
    post();
    await until(() => (waiting()[0]?.attempts ?? 0) >= 2);
    await mailer.stop();
    expect(waiting()).toHaveLength(1);
    expect(waiting()[0]?.lastError).toContain("ECONNREFUSED");

    const back = await openSmtpServer({}, gone.port);
    const second = again();
    second.start();
    await until(() => back.received.length === 1 && waiting().length === 0);
    await second.stop();
  });

  test("that refuses for now is tried again", async () => {
    let attempts = 0;
    const smtp = await openSmtpServer({
      onMailFrom(_address, _session, done) {
        attempts += 1;
        if (attempts > 2) return done();
        done(Object.assign(new Error("busy, come back"), { responseCode: 451 }));
      },
    });
    const { mailer, post, waiting } = openMailer(smtp.url);
    mailer.start();
    post();
    await until(() => waiting().length === 0);
    expect(smtp.received).toHaveLength(1);
    expect(attempts).toBe(3);
  });

  test("that refuses a recipient for good is not asked again, and the others get theirs", async () => {
    let attempts = 0;
    const smtp = await openSmtpServer({
      onRcptTo({ address }, _session, done) {
        if (address !== "gone@example.com") return done();
        attempts += 1;
        done(Object.assign(new Error("no such user"), { responseCode: 550 }));
      },
    });
    const { mailer, post, waiting, lines } = openMailer(smtp.url);
    mailer.start();
    post({ ...LETTER, recipient: "gone@example.com" });
    post();
    await until(() => waiting().length === 0);
    expect(attempts).toBe(1);
    expect(smtp.received.map(({ recipients }) => recipients)).toEqual([["alice@example.com"]]);
    expect(lines.join("")).toContain("is given up");
  });

  test("that hangs holds up neither the caller nor the mail for long", async () => {
    const sockets: Socket[] = [];
    const server = createServer((socket) => void sockets.push(socket));
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    closers.push(() => {
      for (const socket of sockets) socket.destroy();
      server.close();
    });
    const address = server.address();
    const port = typeof address === "object" && address ? address.port : 0;
    const { mailer, post, waiting } = openMailer(`smtp://127.0.0.1:${port}`, { smtpStepTimeoutMs: 100 });
    mailer.start();
    const begun = performance.now();
    post();
    expect(performance.now() - begun).toBeLessThan(100);
    await until(() => (waiting()[0]?.attempts ?? 0) >= 2);
    expect(sockets.length).toBeGreaterThanOrEqual(2);
    expect(waiting()[0]?.lastError).toMatch(/timeout|greeting/i);
  });

  test("for three days loses the message, with a line in the log", async () => {
    const gone = await openSmtpServer();
    await gone.close();
    const { mailer, post, waiting, lines, advance } = openMailer(gone.url);
    post();
    advance(3 * 86_400_000);
    mailer.start();
    await until(() => waiting().length === 0);
    expect(lines.join("")).toContain("is given up");
  });
});

describe("a database that can't be written", () => {
  /** Every such statement fails as on a full disk, until it is called. */
  function refuse(db: Db, statement: "DELETE" | "UPDATE"): () => void {
    db.run(
      `CREATE TRIGGER full BEFORE ${statement} ON outbox BEGIN SELECT RAISE(ABORT, 'disk is full'); END`,
    );
    return () => void db.run("DROP TRIGGER full");
  }
  const failures = (lines: string[]) => lines.filter((line) => line.includes("outbox can't be written"));

  test.each([
    ["taken", 250, 1],
    ["refused for good", 550, 0],
  ])(
    "after a message was %s has it sent once, and its row removed when it can be",
    async (_how, code, count) => {
      let attempts = 0;
      const smtp = await openSmtpServer({
        onRcptTo(_address, _session, done) {
          attempts += 1;
          done(code === 250 ? null : Object.assign(new Error("no such user"), { responseCode: code }));
        },
      });
      const { mailer, db, post, waiting, lines } = openMailer(smtp.url);
      const writable = refuse(db, "DELETE");
      mailer.start();
      post();
      await until(() => failures(lines).length >= 3);
      for (const line of failures(lines)) expect(line).toMatch(/delay_ms=\d\d/);
      writable();
      await until(() => waiting().length === 0);
      expect([attempts, smtp.received.length]).toEqual([1, count]);
    },
  );

  test("when a message must be put off has it sent in the end", async () => {
    const gone = await openSmtpServer();
    await gone.close();
    const { mailer, db, post, waiting, lines } = openMailer(gone.url);
    const writable = refuse(db, "UPDATE");
    mailer.start();
    post();
    await until(() => failures(lines).length >= 3);
    writable();
    const back = await openSmtpServer({}, gone.port);
    await until(() => waiting().length === 0);
    expect(back.received).toHaveLength(1);
  });
});

describe("without a mail server", () => {
  test("says so at start, and writes the link to the log", async () => {
    const { mailer, post, waiting, lines } = openMailer(undefined);
    mailer.start();
    expect(mailer.isConfigured).toBe(false);
    expect(lines.join("")).toContain("SMTP_URL is not set");
    post();
    await until(() => waiting().length === 0);
    expect(lines.join("")).toContain("https://devpocket.example.org/verify-email?token=abc&x=1");
    expect(lines.join("")).toContain("alice@example.com");
  });
});
