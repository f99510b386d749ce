/** A message ready to be sent. */
export interface Message {
  recipient: string;
  subject: string;
  textBody: string;
  htmlBody: string;
}

/** What a message says, once for both of its forms. */
export interface Letter {
  /** Whose account it is about. */
  userId: string;
  recipient: string;
  subject: string;
  /** Plain text. */
  paragraphs: string[];
  /** What to open; stands below the first paragraph. */
  link?: { label: string; url: string };
}

/** Plain text and HTML of the same words. Nothing in it is loaded from elsewhere or tracks its reader. */
export function render({ recipient, subject, paragraphs, link }: Letter): Message {
  const [first = "", ...rest] = paragraphs;
  const text = [first, ...(link ? [`${link.label}:\n${link.url}`] : []), ...rest, "DevPocket"];
  const html = [
    `<p>${escapeHtml(first)}</p>`,
    ...(link ? linkHtml(link) : []),
    ...rest.map((paragraph) => `<p>${escapeHtml(paragraph)}</p>`),
    `<p style="color:#555">DevPocket</p>`,
  ];
  return {
    recipient,
    subject,
    textBody: `${text.join("\n\n")}\n`,
    htmlBody:
      `<!doctype html><html lang="en"><head><meta charset="utf-8"><title>${escapeHtml(subject)}</title></head>` +
      `<body style="font:16px/1.5 sans-serif;color:#111">${html.join("")}</body></html>`,
  };
}

function linkHtml({ label, url }: { label: string; url: string }): string[] {
  const button =
    "display:inline-block;padding:10px 18px;border-radius:6px;background:#1f4fd8;color:#fff;text-decoration:none";
  return [
    `<p><a href="${escapeHtml(url)}" style="${button}">${escapeHtml(label)}</a></p>`,
    `<p style="font-size:13px;color:#555">Or open ${escapeHtml(url)}</p>`,
  ];
}

/** For text and quoted attribute values. */
export function escapeHtml(text: string): string {
  return text
    .replaceAll("&", "&amp;")
    .replaceAll("<", "&lt;")
    .replaceAll(">", "&gt;")
    .replaceAll('"', "&quot;")
    .replaceAll("'", "&#39;");
}
