import { join } from "node:path";
import { openGoogle } from "../auth/stand-in-google.ts";
import { preloading, TestServer } from "../harness.ts";
import { openSmtpServer } from "../mail/smtp.ts";
import { openCluster } from "../stand-in-cluster.ts";
import { Coverage } from "./coverage.ts";
import { ApiDocument } from "./document.ts";
import { type Person, Site } from "./site.ts";

export const APP_ORIGIN = "https://app.example.org";
export const METRICS_TOKEN = "a-token-for-metrics";
export const PUBLIC_URL = "https://pocket.example.org";

export type World = Awaited<ReturnType<typeof openWorld>>;

/**
 * The servers that the contract is held against, each a real process: one without limits, one with the
 * specification's own, one that mails and knows Google, and one whose database will be lost.
 */
export async function openWorld() {
  const coverage = new Coverage();
  const [google, smtp] = await Promise.all([openGoogle(), openSmtpServer()]);
  const [main, limited, mailing, broken] = await Promise.all([
    TestServer.start({
      environment: { CORS_ORIGINS: APP_ORIGIN, TRUSTED_PROXIES: "1", METRICS_TOKEN, ENVIRONMENT: "contract" },
    }),
    TestServer.start({
      environment: {
        RATE_LIMIT_PER_MINUTE: "100",
        AUTH_RATE_LIMIT_PER_MINUTE: "5",
        REGISTRATION: "closed",
        LOCAL_RUNTIME: "off",
      },
    }),
    TestServer.start({
      command: preloading(join(import.meta.dir, "google-redirect.ts")),
      environment: {
        SMTP_URL: smtp.url,
        PUBLIC_URL,
        TRUSTED_PROXIES: "1",
        GOOGLE_CLIENT_IDS: "123-abc.apps.googleusercontent.com",
        GOOGLE_CLIENT_SECRET: "GOCSPX-secret",
        STAND_IN_GOOGLE: new URL(google.endpoints.keys).origin,
      },
    }),
    TestServer.start(),
  ]);
  const document = await ApiDocument.of(main.url);
  const site = (server: TestServer, headers?: Record<string, string>) =>
    new Site(server, document, coverage, headers);
  const sites = {
    main: site(main),
    limited: site(limited),
    mailing: site(mailing, { "X-Forwarded-Proto": "https" }),
    broken: site(broken),
  };
  const [admin, ada, bob] = await Promise.all([
    sites.main.signIn("admin", TestServer.adminPassword),
    sites.main.person("ada"),
    sites.main.person("bob"),
  ]);
  await sites.main.call("PUT /api/v1/users/{user_id}", {
    as: admin,
    params: { user_id: ada.id },
    body: { subscription_plan: "pro" },
    status: 200,
  });
  // Its command is tried several times: it is begun here and looked at later.
  await makeTemplate(sites.main, admin, "failing", "exit 3");
  const failing = failed(sites.main);
  await makeTemplate(sites.main, admin, "crashing", "kill -9 $PPID");
  return {
    ...sites,
    failing,
    document,
    coverage,
    google,
    smtp,
    admin,
    ada,
    bob,
    cluster: openCluster(),
    /** An environment of Ada's that runs, for who only looks. */
    adas: await sites.main.environment(ada, { name: "adas" }),
    async close() {
      await Promise.all([main, limited, mailing, broken].map((server) => server.stop()));
      await Promise.all([smtp.close(), google.close()]);
    },
  };
}

/** Signs in at a site where only the administrator is. */
export function adminOf(site: Site): Promise<Person> {
  return site.signIn("admin", TestServer.adminPassword);
}

async function makeTemplate(site: Site, as: Person, name: string, command: string): Promise<void> {
  await site.call("POST /api/v1/templates", {
    as,
    body: {
      name,
      display_name: name,
      category: "devops",
      docker_image: null,
      startup_commands: [command],
    },
    status: 201,
  });
}

async function failed(site: Site) {
  const person = await site.person();
  const created = await site.call("POST /api/v1/environments", {
    as: person,
    body: { name: "fails", template: "failing" },
    headers: { Prefer: "wait=60" },
    status: 201,
  });
  return { person, created };
}
