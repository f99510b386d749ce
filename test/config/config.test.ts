import { describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { ConfigError, configHelp, configWarnings, loadConfig } from "../../src/config/config.ts";

test("everything has a default that is safe: this machine only, its own data folder", () => {
  const config = loadConfig({});
  expect(config).toMatchObject({
    host: "127.0.0.1",
    port: 8000,
    dataDir: resolve("./data"),
    environment: "production",
    registration: "open",
    localRuntime: true,
    corsOrigins: [],
    trustedProxies: 0,
    rateLimits: { generalPerMinute: 100, authPerMinute: 5 },
    sockets: { connectionsPerUser: 10, messagesPerMinute: 100 },
    idleStopMs: { free: 7_200_000, starter: 28_800_000, pro: 86_400_000 },
    deleteStoppedAfterMs: 30 * 86_400_000,
  });
  expect(config.publicUrl).toBeUndefined();
  expect(config.tls).toBeUndefined();
});

describe("a wrong value stops the start with one line that names variable, fault and an example", () => {
  test.each([
    ["PORT", "80x", 'PORT="80x" is not a number. Example: PORT=8000'],
    ["PORT", "70000", 'PORT="70000" is above 65535. Example: PORT=8000'],
    ["REGISTRATION", "maybe", 'REGISTRATION="maybe" must be open or closed. Example: REGISTRATION=closed'],
    ["LOCAL_RUNTIME", "true", 'LOCAL_RUNTIME="true" must be on or off. Example: LOCAL_RUNTIME=off'],
    ["PUBLIC_URL", "devpocket.org", 'PUBLIC_URL="devpocket.org" is not a URL.'],
    [
      "PUBLIC_URL",
      "ftp://devpocket.org",
      'PUBLIC_URL="ftp://devpocket.org" must begin with http:// or https://.',
    ],
    [
      "PUBLIC_URL",
      "https://devpocket.org/?a=b",
      'PUBLIC_URL="https://devpocket.org/?a=b" may have neither query nor fragment.',
    ],
    [
      "PUBLIC_URL",
      "https://devpocket.org/#",
      'PUBLIC_URL="https://devpocket.org/#" may have neither query nor fragment.',
    ],
    ["CORS_ORIGINS", "*", 'CORS_ORIGINS="*" may not be *, since credentials are allowed; list the origins.'],
    [
      "CORS_ORIGINS",
      "https://a.org/path",
      'CORS_ORIGINS="https://a.org/path" holds something that is not an origin',
    ],
    ["ADMIN_EMAIL", "me", 'ADMIN_EMAIL="me" is not an email address.'],
    ["INSTALLING_TIMEOUT", "20", 'INSTALLING_TIMEOUT="20" is not a duration such as 90s, 10m, 2h or 30d.'],
    ["IDLE_STOP_FREE", "never", 'IDLE_STOP_FREE="never" is neither off nor a duration'],
    ["TRUSTED_PROXIES", "-1", 'TRUSTED_PROXIES="-1" is not a whole number.'],
    ["TLS_CERT_FILE", "/tmp/x", "TLS_KEY_FILE is missing: a certificate and its key go together."],
    [
      "SMTP_URL",
      "smtp://mail.example.org",
      "PUBLIC_URL is missing: messages link to it, so SMTP_URL needs it.",
    ],
    [
      "MAIL_FROM",
      "nonsense",
      'MAIL_FROM="nonsense" is not one address, with or without a name before it. Example: MAIL_FROM=DevPocket <devpocket@example.org>',
    ],
    ...[
      "DevPocket <nonsense>",
      "DevPocket devpocket@example.org",
      "DevPocket <devpocket@example.org",
      "<>",
      "a@example.org, b@example.org",
      "A <a@example.org>, B <b@example.org>",
      "Acme, Inc. <acme@example.org>",
      "Friends: a@example.org;",
      "A <a@example.org> <b@example.org>",
      "A\n <a@example.org>",
      "a@b@example.org",
      "a@example..org",
      "a b@example.org",
    ].map((value) => ["MAIL_FROM", value, "is not one address"] as const),
    ...["smtp:", "smtp://", "smtp:mail.example.org"].map(
      (value) => ["SMTP_URL", value, "SMTP_URL names no host. Example: SMTP_URL=smtps://"] as const,
    ),
    ...["smtp://us%er:hunter22@mail", "smtp://user:100%@mail", "smtp://user:%ff@mail"].map(
      (value) =>
        [
          "SMTP_URL",
          value,
          "SMTP_URL has a user or password that can't be percent-decoded (% itself is %25). Example: SMTP_URL=smtps://",
        ] as const,
    ),
  ])("%s=%s", (name, value, message) => {
    const load = () => loadConfig({ [name]: value });
    expect(load).toThrow(ConfigError);
    expect(load).toThrow(message);
  });

  test.each([
    ["JWT_SECRET", "hunter22"],
    ["ADMIN_PASSWORD", "secret"],
    ["ENCRYPTION_KEY", "bm90IDMyIGJ5dGVz"],
    ["SMTP_URL", "http://user:hunter22@mail"],
    ["SMTP_URL", "smtp://user:hunter%@mail"],
  ])("and never shows a secret: %s", (name, value) => {
    const load = () => loadConfig({ [name]: value });
    expect(load).toThrow(name);
    expect(load).not.toThrow(value);
  });
});

test.each([
  [{}, 1],
  [{ TRUSTED_PROXIES: "1" }, 0],
  [{ TLS_CERT_FILE: "/etc/devpocket/tls.crt", TLS_KEY_FILE: "/etc/devpocket/tls.key" }, 0],
])("an https PUBLIC_URL with %o has %d warnings", (set, warnings) => {
  const config = loadConfig({ PUBLIC_URL: "https://devpocket.org/pocket", ...set });
  expect(configWarnings(config)).toHaveLength(warnings);
});

test.each([
  "devpocket@example.org",
  "<devpocket@localhost>",
  "DevPocket<devpocket@example.org>",
  "O'Brien & Söhne GmbH. <post@exämple.org>",
  '"Acme, Inc. (staging)" <acme+devpocket@mail.example.org>',
])("mail can be from %s", (from) => {
  expect(loadConfig({ MAIL_FROM: ` ${from} ` }).mail.from).toBe(from);
});

test("a mail server's user and password may hold anything, percent-encoded", () => {
  const SMTP_URL = "smtp://me%40example.org:100%25%2F%3A@[::1]:2525";
  const { smtpUrl } = loadConfig({ SMTP_URL, PUBLIC_URL: "https://devpocket.org" }).mail;
  expect(smtpUrl?.href).toBe(SMTP_URL);
});

test("an empty variable is as good as none", () => {
  expect(loadConfig({ PORT: "", PUBLIC_URL: "" }).port).toBe(8000);
});

test("secrets can be files, but not both", () => {
  const folder = mkdtempSync(join(tmpdir(), "devpocket-test-"));
  const file = join(folder, "secret");
  try {
    expect(() => loadConfig({ JWT_SECRET_FILE: file })).toThrow(
      "JWT_SECRET can't be read from JWT_SECRET_FILE",
    );
    writeFileSync(file, `${"s".repeat(40)}\n`);
    expect(loadConfig({ JWT_SECRET_FILE: file }).jwtSecret).toBe("s".repeat(40));
    const both = { JWT_SECRET_FILE: file, JWT_SECRET: "t".repeat(40) };
    expect(() => loadConfig(both)).toThrow("JWT_SECRET and JWT_SECRET_FILE are both set");
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("keys are 32 bytes in base64 or hex, the first of several counts for sealing", () => {
  const [first, second] = [Buffer.alloc(32, 1), Buffer.alloc(32, 2)];
  const config = loadConfig({ ENCRYPTION_KEY: `${first.toString("base64")}, ${second.toString("hex")}` });
  expect(config.encryptionKeys).toEqual([first, second]);
});

test("--help documents every variable, with its default or an example", () => {
  const help = configHelp();
  for (const name of ["HOST", "DATA_DIR", "SMTP_URL", "ENCRYPTION_KEY", "IDLE_STOP_PRO"])
    expect(help).toContain(`  ${name}\n`);
  expect(help).toContain("(default 127.0.0.1)");
  expect(help).toContain("or JWT_SECRET_FILE");
});
