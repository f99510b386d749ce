import { Database } from "bun:sqlite";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import {
  DEVPOCKET,
  FILLABLE,
  limitFiles,
  preloading,
  SOURCE,
  TestClient,
  TestServer,
  temporaryFolder,
} from "./harness.ts";
import { until } from "./until.ts";

const TLS = {
  cert: join(import.meta.dir, "http/tls/cert.pem"),
  other: join(import.meta.dir, "http/tls/other-key.pem"),
};

let folder: string;
beforeEach(() => {
  folder = temporaryFolder();
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

async function devpocket(args: string[], environment: Record<string, string> = {}) {
  const run = Bun.spawn([...DEVPOCKET, ...args], {
    cwd: folder,
    env: { PATH: Bun.env.PATH ?? "", DATA_DIR: join(folder, "data"), LOCAL_RUNTIME: "off", ...environment },
    stdout: "pipe",
    stderr: "pipe",
  });
  const [out, err] = await Promise.all([new Response(run.stdout).text(), new Response(run.stderr).text()]);
  return { code: await run.exited, out, err };
}

function inDatabase(dataDir: string, statement: string): unknown[] {
  return inFile(join(dataDir, "devpocket.db"), statement);
}

function inFile(file: string, statement: string): unknown[] {
  using database = new Database(file);
  return database.query(statement).all();
}

describe("the command line", () => {
  test.each(["--help", "serve --help", "migrate --help", "admin create --help", "backup -h"])(
    "%p shows help and does nothing",
    async (args) => {
      const { code, out, err } = await devpocket(args.split(" "));
      expect({ code, err }).toEqual({ code: 0, err: "" });
      expect(out).toContain("Usage: ");
      expect(() => statSync(join(folder, "data"))).toThrow();
    },
  );

  test("a wrong configuration is one line and exit code 2", async () => {
    const { code, out, err } = await devpocket([], { PORT: "eighty" });
    expect({ code, out }).toEqual({ code: 2, out: "" });
    expect(err).toBe('devpocket: PORT="eighty" is not a number. Example: PORT=8000\n');
  });

  test.each([
    { args: "nonsense", fault: 'unknown command "nonsense"' },
    { args: "admin", fault: 'unknown command "admin"' },
    { args: "backup", fault: "FILE is missing" },
    { args: "migrate too much", fault: '"too" is one argument too many' },
    { args: "health --url http://localhost", fault: "--url is no option of this command" },
    { args: "--nonsense", fault: "Unknown option '--nonsense'" },
    {
      args: "connect --url ftp://localhost",
      fault: '--url="ftp://localhost" must begin with http:// or https://',
    },
    { args: "connect --url localhost:port", fault: '--url="localhost:port" is not a URL' },
    { args: "connect --url http://", fault: '--url="http://" is not a URL' },
  ])("$args is refused with the reason", async ({ args, fault }) => {
    const { code, err } = await devpocket(args.split(" "));
    expect(code).toBe(2);
    expect(err).toStartWith(`devpocket: ${fault}`);
  });

  test.each([
    { set: { HOST: "192.0.2.1" }, names: "HOST=192.0.2.1" },
    { set: { TLS_CERT_FILE: import.meta.path, TLS_KEY_FILE: import.meta.path }, names: "TLS_CERT_FILE" },
    {
      set: { TLS_CERT_FILE: "/nonexistent.pem", TLS_KEY_FILE: import.meta.path },
      names: "TLS_CERT_FILE=/nonexistent",
    },
    { set: { TLS_CERT_FILE: TLS.cert, TLS_KEY_FILE: "/nonexistent" }, names: "TLS_KEY_FILE=/nonexistent" },
    { set: { TLS_CERT_FILE: TLS.cert, TLS_KEY_FILE: TLS.other }, names: "TLS_KEY_FILE" },
  ])("what can't be listened on is put down to $names", async ({ set, names }) => {
    const { code, err } = await devpocket([], { PORT: "0", ...set });
    expect({ code, lines: err.split("\n").length }).toEqual({ code: 2, lines: 2 });
    expect(err).toContain(names);
  });

  test("a data folder that can't be made is named", async () => {
    await Bun.write(join(folder, "file"), "");
    const { code, err } = await devpocket(["migrate"], { DATA_DIR: join(folder, "file", "data") });
    expect(code).toBe(2);
    expect(err).toContain("DATA_DIR=");
  });

  test("a data folder that can't be locked is not called one in use", async () => {
    mkdirSync(join(folder, "data", "server.lock"), { recursive: true });
    expect(await devpocket([])).toMatchObject({
      code: 2,
      err: expect.stringMatching(/^devpocket: DATA_DIR=\S+ can't be locked: .+\n$/),
    });
  });

  test.each([["serve"], ["migrate"], ["rotate-key"]])(
    "%p refuses a newer one's database",
    async (command) => {
      await devpocket(["migrate"]);
      inDatabase(
        join(folder, "data"),
        "insert into __drizzle_migrations (hash, created_at) values ('', 9e12)",
      );
      expect(await devpocket([command], { PORT: "0" })).toMatchObject({
        code: 2,
        err: expect.stringMatching(/^devpocket: .+ was brought up to date by a newer DevPocket\..+\n$/),
      });
    },
  );

  test.each([
    [
      "that holds no tables, as a backup that was cut short",
      "serve",
      async (file: string) => {
        using database = new Database(file);
        database.run("create table other (id)");
        database.run("drop table other");
      },
    ],
    [
      "of another program",
      "migrate",
      async (file: string) => {
        using database = new Database(file);
        database.run("create table other (id)");
      },
    ],
    ["that is no database", "serve", (file: string) => Bun.write(file, "garbage".repeat(1000))],
    [
      "that is damaged",
      "serve",
      async (file: string) => {
        await devpocket(["migrate"]);
        truncateSync(file, 8192);
      },
    ],
    [
      "that is damaged",
      "backup copy.db",
      async (file: string) => {
        await devpocket(["migrate"]);
        truncateSync(file, 8192);
      },
    ],
  ])("a database %s is no new installation to %p: it is named in one line", async (_, command, make) => {
    const file = join(folder, "data", "devpocket.db");
    mkdirSync(join(folder, "data"));
    await make(file);
    const before = readFileSync(file);
    const { code, err } = await devpocket(command.split(" "), { PORT: "0" });
    expect({ code, lines: err.split("\n").length }).toEqual({ code: 2, lines: 2 });
    expect(err).toStartWith(`devpocket: ${file} `);
    expect(err).toContain("backup");
    expect(readFileSync(file).equals(before)).toBe(true);
    expect(existsSync(join(folder, "copy.db"))).toBe(false);
  });

  test.each([
    ["that holds something else", (file: string) => writeFileSync(file, "garbage")],
    ["that is a folder", (file: string) => void mkdirSync(file)],
  ])("a key file %s is named in one line", async (_, make) => {
    const file = join(folder, "data", "keys", "jwt");
    mkdirSync(join(folder, "data", "keys"), { recursive: true });
    make(file);
    const { code, err } = await devpocket(["serve"], { PORT: "0" });
    expect({ code, lines: err.split("\n").length }).toEqual({ code: 2, lines: 2 });
    expect(err).toStartWith(`devpocket: ${file} `);
    expect(err).toContain("restore it from a backup");
  });

  test.each(["backup copy.db", "rotate-key", "admin reset-password admin"])(
    "%p makes no installation where there is none: the folder is named",
    async (command) => {
      const dataDir = join(folder, "data");
      const { code, out, err } = await devpocket(command.split(" "));
      expect({ code, out }).toEqual({ code: 2, out: "" });
      expect(err).toBe(
        `devpocket: DATA_DIR=${dataDir} holds no database. Example: DATA_DIR=/var/lib/devpocket\n`,
      );
      expect(readdirSync(folder)).toEqual([]);
    },
  );

  test("admin create may be the first step, and tells which folder it has made an installation in", async () => {
    const made = `Made a new installation in ${join(folder, "data")}\n`;
    const { code, out, err } = await devpocket(["admin", "create", "first@example.org"]);
    expect({ code, err }).toEqual({ code: 0, err: "" });
    expect(out).toStartWith(`${made}admin <first@example.org>, password `);
    const second = await devpocket(["admin", "create", "second@example.org", "second"]);
    expect(second).toMatchObject({ code: 0, out: expect.not.stringContaining("new installation") });
    rmSync(join(folder, "data"), { recursive: true });
    expect(await devpocket(["admin", "create", "nonsense"])).toMatchObject({ code: 2, out: made });
  });

  test("a backup that is killed in its midst leaves nothing under its name, and the next is made", async () => {
    await devpocket(["migrate"]);
    // So much that writing it takes a while.
    inDatabase(join(folder, "data"), "create table filling as select randomblob(100000000)");
    const file = join(folder, "backup.db");
    const cut = Bun.spawn([...DEVPOCKET, "backup", file], {
      cwd: folder,
      env: { PATH: Bun.env.PATH ?? "", DATA_DIR: join(folder, "data") },
      stdout: "ignore",
    });
    const isBegun = (path: string) => existsSync(path) && statSync(path).size > 0;
    await until(() => isBegun(`${file}.partial`) || isBegun(file), { intervalMs: 1 });
    cut.kill("SIGKILL");
    await cut.exited;
    expect(cut.signalCode).toBe("SIGKILL");
    expect(readdirSync(folder)).toContain("backup.db.partial");
    expect(existsSync(file)).toBe(false);

    inDatabase(join(folder, "data"), "drop table filling");
    expect(await devpocket(["backup", file])).toMatchObject({ code: 0, err: "" });
    expect(statSync(file).mode & 0o777).toBe(0o600);
    expect(inFile(file, "pragma integrity_check")).toEqual([{ integrity_check: "ok" }]);
    expect(readdirSync(folder).toSorted()).toEqual(["backup.db", "data"]);
  });

  test("migrate brings a database up to date, and says when it is", async () => {
    expect((await devpocket(["migrate"])).out).toContain("Applied");
    expect((await devpocket(["migrate"])).out).toBe("The database is up to date\n");
  });
});

describe("a first start", () => {
  test("makes data folder, keys, database and an administrator whose password it shows once", async () => {
    const dataDir = join(folder, "data");
    mkdirSync(dataDir, { mode: 0o755 });
    const first = await TestServer.start({
      dataDir,
      environment: { ADMIN_PASSWORD: "", LOCAL_RUNTIME: "off" },
    });
    const [, password = ""] = await first.output.line(/password (\S+) \(shown this once\)/);
    for (const file of [
      "devpocket.db",
      "devpocket.db-wal",
      "devpocket.db-shm",
      "keys/jwt",
      "keys/encryption",
    ]) {
      expect(statSync(join(dataDir, file)).mode & 0o777).toBe(0o600);
    }
    const client = await first.signedIn("admin", password);
    const names = (await client.list("/api/v1/templates")).map(({ name }) => name);
    expect(names.toSorted()).toEqual(["go", "nodejs", "python", "rust", "shell", "ubuntu"]);
    expect(await client.list("/api/v1/clusters")).toMatchObject([
      { name: "local", provider: "local", kubeconfig: null },
    ]);
    expect(await first.stop()).toBe(0);
    expect(inDatabase(dataDir, "select password_hash from users")).toEqual([
      // What hashing costs is made less in tests of its own process: a server's is OWASP's.
      { password_hash: expect.stringMatching(/^\$argon2id\$v=19\$m=19456,t=2,p=1\$/) },
    ]);

    const second = await TestServer.start({
      dataDir,
      environment: { ADMIN_PASSWORD: "", LOCAL_RUNTIME: "off" },
    });
    expect(second.output.text).not.toContain("shown this once");
    const again = new TestClient(second.url, client.token);
    expect(await again.get("/api/v1/auth/me")).toMatchObject({ username: "admin", role: "admin" });
    expect(await second.stop()).toBe(0);
  }, 30_000);

  test("that fails keeps the administrator, and so the password, for one that succeeds", async () => {
    const taken = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: () => new Response() });
    const dataDir = join(folder, "data");
    const wrong = { PORT: "0", METRICS_PORT: String(taken.port) };
    const { code, err } = await devpocket([], wrong);
    expect({ code, err }).toEqual({ code: 2, err: expect.stringContaining("METRICS_PORT=") });
    await taken.stop(true);
    const right = await TestServer.start({
      dataDir,
      environment: { ADMIN_PASSWORD: "", LOCAL_RUNTIME: "off" },
    });
    await right.output.line(/password (\S+) \(shown this once\)/);
    expect(await right.stop()).toBe(0);
  });

  test("lets nobody register before its administrator is made", async () => {
    // The trial of a sandbox holds the start up until the gate is there.
    const gate = join(folder, "gate");
    const bwrap = `#!/bin/sh\nuntil [ -e '${gate}' ]; do sleep 0.01; done\nexit 1\n`;
    writeFileSync(join(folder, "bwrap"), bwrap, { mode: 0o755 });
    const free = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: () => new Response() });
    const port = String(free.port);
    await free.stop(true);
    const starting = TestServer.start({ environment: { PORT: port, PATH: `${folder}:${Bun.env.PATH}` } });
    const client = new TestClient(`http://127.0.0.1:${port}`);
    await until(() => client.get("/health/live").catch(() => undefined));
    const body = { username: "admin", email: "mallory@example.org", password: "mallory's password" };
    await client.post("/api/v1/auth/register", body, 503);
    await client.get("/health/ready", 503);
    writeFileSync(gate, "");
    const server = await starting;
    await client.post("/api/v1/auth/register", body, 409);
    await (await server.signedIn()).get("/api/v1/users/me");
    expect(await server.stop()).toBe(0);
  });

  test("tells how to go on with the words that this server was started with", async () => {
    const server = await TestServer.start({ command: SOURCE, environment: { LOCAL_RUNTIME: "off" } });
    await server.output.line(/npx -y bun@\S+ start connect --user admin --url http:\S+:/);
    await server.stop();
  });

  test.each([
    { set: { HOST: "0.0.0.0" }, url: "http://127.0.0.1:" },
    { set: { HOST: "::1" }, url: "http://[::1]:" },
    {
      set: { PUBLIC_URL: "https://pocket.example.org", TRUSTED_PROXIES: "1" },
      url: "https://pocket.example.org",
    },
  ])("names an address that can be gone to: $set is $url", async ({ set, url }) => {
    const server = await TestServer.start({ environment: { LOCAL_RUNTIME: "off", ...set } });
    const [line = ""] = await server.output.line(/connect --user admin.*/);
    expect(line).toContain(`--url ${url}`);
    await server.stop();
  });

  test("leaves the data folder to a server that has it", async () => {
    const server = await TestServer.start({ environment: { LOCAL_RUNTIME: "off" } });
    const { code, err } = await devpocket(["serve"], { DATA_DIR: server.dataDir, PORT: "0" });
    expect(code).toBe(2);
    expect(err).toContain("is in use by another DevPocket server");
    expect(await server.stop()).toBe(0);
  });
});

test("a server outlives errors of its own that nobody has caught, and tells of them", async () => {
  const preload = join(folder, "faults.ts");
  await Bun.write(
    preload,
    `process.on("SIGUSR2", () => {
      setTimeout(() => { throw new Error("out of a timer"); });
      setTimeout(() => void Promise.reject(new Error("of a promise")));
    });`,
  );
  const server = await TestServer.start({
    command: preloading(preload),
    environment: { LOCAL_RUNTIME: "off" },
  });
  process.kill(server.pid, "SIGUSR2");
  await server.output.line(/nobody has caught an error.*out of a timer/);
  await server.output.line(/nobody has caught an error.*of a promise/);
  await new TestClient(server.url).get("/health/ready");
  expect(await server.stop()).toBe(0);
});

test("a server whose disk takes nothing is not ready, but alive, and ready again when it does", async () => {
  const server = await TestServer.start({
    command: FILLABLE,
    environment: { LOCAL_RUNTIME: "off" },
  });
  const client = new TestClient(server.url);
  const becomes = (status: number) =>
    until(async () => (await client.raw("GET", "/health/ready")).status === status, { intervalMs: 200 });
  await becomes(200);
  limitFiles(server.pid, "4096");
  await becomes(503);
  await client.get("/health/live");
  await server.output.line(/not ready check=database/);
  limitFiles(server.pid, "unlimited");
  await becomes(200);
  expect(await server.stop()).toBe(0);
}, 30_000);

describe("a server that is told to end", () => {
  test.each(["SIGTERM", "SIGINT", "SIGHUP"] as const)("by %p does so in order", async (signal) => {
    const server = await TestServer.start({ environment: { LOCAL_RUNTIME: "off" } });
    process.kill(server.pid, signal);
    await server.output.line(/stopped/);
    expect(await server.stop()).toBe(0);
  });

  test("outlives its terminal when it was started with nohup", async () => {
    const server = await TestServer.start({
      command: ["nohup", ...DEVPOCKET],
      environment: { LOCAL_RUNTIME: "off" },
    });
    process.kill(server.pid, "SIGHUP");
    await new TestClient(server.url).get("/health/live");
    expect(server.output.text).not.toContain("stopping");
    expect(await server.stop()).toBe(0);
  });
});

describe("beside a running server", () => {
  let server: TestServer;
  let here: { DATA_DIR: string };
  beforeAll(async () => {
    server = await TestServer.start({ environment: { LOCAL_RUNTIME: "off" } });
    here = { DATA_DIR: server.dataDir };
  });
  afterAll(async () => {
    expect(await server.stop()).toBe(0);
  });

  test("admin create and reset-password work, and end the sessions", async () => {
    const made = await devpocket(["admin", "create", "second@example.org", "second"], here);
    const [, password = ""] = /password (\S+)/.exec(made.out) ?? [];
    const client = await server.signedIn("second", password);
    const reset = await devpocket(["admin", "reset-password", "second"], here);
    expect(reset.code).toBe(0);
    await client.get("/api/v1/auth/me", 401);
    const [, changed = ""] = /password (\S+)/.exec(reset.out) ?? [];
    await (await server.signedIn("second", changed)).get("/api/v1/auth/me");
    expect((await devpocket(["admin", "reset-password", "nobody"], here)).code).toBe(2);
    expect((await devpocket(["admin", "create", "second@example.org", "second"], here)).code).toBe(2);
  }, 30_000);

  test("backup writes a copy that is whole, and overwrites nothing", async () => {
    const file = join(folder, "backup.db");
    expect((await devpocket(["backup", file], here)).code).toBe(0);
    expect(statSync(file).mode & 0o777).toBe(0o600);
    const copy = new Database(file, { readonly: true });
    expect(copy.query("select username from users").all()).toContainEqual({ username: "admin" });
    expect(copy.query("pragma integrity_check").get()).toEqual({ integrity_check: "ok" });
    copy.close();
    expect(await devpocket(["backup", file], here)).toMatchObject({ code: 2 });
    expect(readdirSync(folder)).toEqual(["backup.db"]);
  });

  test.each(["serve", "migrate", "rotate-key", "admin reset-password admin"])(
    "%p migrates nothing",
    async (command) => {
      // As an older server's would look.
      inDatabase(server.dataDir, "delete from __drizzle_migrations");
      const { code, err } = await devpocket(command.split(" "), { ...here, PORT: "0" });
      expect({ code, err }).toEqual({ code: 2, err: expect.stringContaining(" is in use by a") });
    },
  );
});

test.each(["127.0.0.1", "0.0.0.0", "::1"])(
  "health asks the address %p that a server listens on",
  async (host) => {
    const server = await TestServer.start({ environment: { LOCAL_RUNTIME: "off", HOST: host } });
    const { port } = new URL(server.url);
    expect(await devpocket(["health"], { HOST: host, PORT: port })).toMatchObject({ code: 0 });
    await server.stop();
    expect(await devpocket(["health"], { HOST: host, PORT: port })).toMatchObject({ code: 1 });
  },
);
