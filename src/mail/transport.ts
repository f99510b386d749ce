import type { Transporter } from "nodemailer";
import type { Logger } from "../lib/logger.ts";
import type { Message } from "./message.ts";

/** What hands a message on: it resolves when somebody else has taken it. */
export interface Transport {
  send(message: Message): Promise<void>;
}

/** How long a mail server may leave us waiting at each step. */
const SMTP_STEP_MS = 15_000;

interface SmtpOptions {
  url: URL;
  from: string;
  stepTimeoutMs?: number | undefined;
}

export function smtpTransport({ url, from, stepTimeoutMs = SMTP_STEP_MS }: SmtpOptions): Transport {
  let smtp: Promise<Transporter> | undefined;

  /** Loaded with the first message: a start would wait 10 ms for it. */
  async function open(): Promise<Transporter> {
    const { createTransport } = await import("nodemailer");
    return createTransport({
      url: url.href,
      dnsTimeout: stepTimeoutMs,
      connectionTimeout: stepTimeoutMs,
      greetingTimeout: stepTimeoutMs,
      socketTimeout: stepTimeoutMs,
      // A name in a message must never become a file of this machine or a request into its network.
      disableFileAccess: true,
      disableUrlAccess: true,
    });
  }

  return {
    async send({ recipient, subject, textBody, htmlBody }) {
      smtp ??= open();
      await (await smtp).sendMail({
        from,
        // As an object: a string could smuggle in more recipients.
        to: { name: "", address: recipient },
        subject,
        text: textBody,
        html: htmlBody,
        headers: { "Auto-Submitted": "auto-generated" },
      });
    },
  };
}

/** For a server without SMTP: its operator passes on by hand what the log says. */
export function logTransport(log: Logger): Transport {
  return {
    async send({ recipient, subject, textBody }) {
      const link = /https?:\/\/\S+/.exec(textBody)?.[0];
      log.info("mail is not sent without SMTP_URL", { recipient, subject, link });
    },
  };
}

/** Whether the server said that this recipient will never do (RFC 5321 §4.2.1: 5yz to RCPT). */
export function isRefusedRecipient(error: unknown): boolean {
  if (!(error instanceof Error) || !("responseCode" in error) || !("command" in error)) return false;
  return Number(error.responseCode) >= 500 && error.command === "RCPT TO";
}
