import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DEVPOCKET, Output, TestServer } from "../harness.ts";
import { cuttingProxy } from "../sockets/cutting-proxy.ts";
import { ENVIRONMENT_ID, serveTerminals } from "../sockets/terminal-server.ts";
import { ScriptedPty } from "../terminal/ptys.ts";
import { until } from "../until.ts";

const JOIN = join(import.meta.dir, "../../src/connect/terminal.ts");
/** As a shell has it. */
const COMMAND = DEVPOCKET.map((part) => `"${part}"`).join(" ");
const PROMPT = ":\x1b[01;34m/workspace\x1b[00m$ ";
const CTRL_RIGHT_BRACKET = "\x1d";

let server: TestServer;
beforeAll(async () => {
  server = await TestServer.start();
});
afterAll(() => server.stop());

/** `devpocket connect` in a terminal of its own. */
class Person {
  text = "";
  readonly #process: Bun.Subprocess;

  constructor(args: string[]) {
    const decoder = new TextDecoder();
    this.#process = Bun.spawn([...DEVPOCKET, "connect", ...args], {
      env: { PATH: Bun.env.PATH ?? "", TERM: "xterm-256color" },
      terminal: {
        cols: 100,
        rows: 30,
        data: (_terminal, bytes) => {
          this.text += decoder.decode(bytes, { stream: true });
        },
      },
    });
  }

  type(text: string): void {
    this.#process.terminal?.write(text);
  }

  resize(cols: number, rows: number): void {
    this.#process.terminal?.resize(cols, rows);
  }

  async sees(text: string): Promise<void> {
    await until(() => this.text.includes(text), {
      timeoutMs: 20_000,
      message: () => `${JSON.stringify(text)} is not in ${JSON.stringify(this.text)}`,
    });
  }

  /** That many times in all. */
  async prompts(times: number): Promise<void> {
    await until(() => this.text.split(PROMPT).length > times, {
      timeoutMs: 20_000,
      message: () => `not ${times} prompts in ${JSON.stringify(this.text)}`,
    });
  }

  async signsIn(password: string = TestServer.adminPassword): Promise<void> {
    await this.sees("Password: ");
    this.type(`${password}\r`);
  }

  get exited(): Promise<number> {
    return this.#process.exited;
  }
}

/** What a line of the screen still shows: escape sequences draw nothing, and those that erase take it all. */
function afterErasure(line: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: escape sequences are what is looked for
  const shown = line.split(/\x1b\[\d?[JK]/).at(-1) ?? "";
  // biome-ignore lint/suspicious/noControlCharactersInRegex: as above
  return shown.replace(/\x1b\[[\d;?]*[A-Za-z]|\r/g, "");
}

describe("connect", () => {
  test("makes an environment, is its terminal, and comes back to the shell that was left", async () => {
    const first = new Person(["--url", server.url, "--user", "admin"]);
    await first.signsIn();
    await first.sees(PROMPT);
    first.type("stty size; export KEPT=still\r");
    await first.sees("30 100");
    // What interrupts a shell that is not yet at its prompt again takes with it what is typed around it.
    await first.prompts(2);
    first.type("echo sle''eping; sleep 1000\r");
    await first.sees("sleeping");
    first.type("\x03");
    await first.prompts(3);
    first.type(CTRL_RIGHT_BRACKET);
    expect(await first.exited).toBe(0);
    expect(first.text).not.toContain(TestServer.adminPassword);

    const second = new Person(["--url", server.url, "--user", "admin"]);
    await second.signsIn();
    await second.sees("30 100");
    second.type("echo $KEPT here; exit 7\r");
    await second.sees("still here");
    expect(await second.exited).toBe(7);
  }, 60_000);

  test("shows what is printed byte for byte, and leaves the person's terminal as it was", async () => {
    const script = `stty >before; ${COMMAND} connect --url ${server.url} --user admin; stty >after; cmp before after && echo same`;
    const folder = mkdtempSync(join(tmpdir(), "devpocket-connect-"));
    let text = "";
    const person = Bun.spawn(["sh", "-c", script], {
      cwd: folder,
      env: { PATH: Bun.env.PATH ?? "", TERM: "xterm-256color" },
      terminal: {
        cols: 100,
        rows: 30,
        data: (_terminal, bytes) => (text += Buffer.from(bytes).toString("latin1")),
      },
    });
    const sees = (wanted: string) => until(() => text.includes(wanted), { message: () => text });
    await sees("Password: ");
    person.terminal?.write(`${TestServer.adminPassword}\r`);
    await sees(PROMPT);
    person.terminal?.write("stty raw; printf 'down%s\\nby one' ''; stty sane; exit\r");
    await sees("down\nby one");
    await person.exited;
    expect(text).toContain("same\r\n");
    rmSync(folder, { recursive: true });
  }, 60_000);

  test("starts an environment that is just stopping, once it has", async () => {
    const admin = await server.signedIn();
    const { id } = await admin.post("/api/v1/environments", { name: "stopping", template: "shell" }, 201);
    const first = new Person(["--url", server.url, "--user", "admin", "stopping"]);
    await first.signsIn();
    await first.sees(PROMPT);
    // What does not end by itself keeps it stopping until it is killed.
    first.type("(trap '' TERM HUP; exec sleep 1000) &\r");
    await first.prompts(2);
    first.type(CTRL_RIGHT_BRACKET);
    expect(await first.exited).toBe(0);

    const second = new Person(["--url", server.url, "--user", "admin", "stopping"]);
    await second.sees("Password: ");
    await admin.post(`/api/v1/environments/${id}/stop`);
    await second.signsIn();
    await second.sees("is just stopping");
    await second.sees(PROMPT);
    second.type("exit 4\r");
    expect(await second.exited).toBe(4);
  }, 60_000);

  test("can be left while the server is away", async () => {
    const other = await TestServer.start();
    const person = new Person(["--url", other.url, "--user", "admin"]);
    await person.signsIn();
    await person.sees(PROMPT);
    await other.stop();
    await person.sees("connection lost");
    person.type(CTRL_RIGHT_BRACKET);
    expect(await person.exited).toBe(0);
  }, 60_000);

  test("types once what was typed while the connection was lost, and takes the size with it", async () => {
    let isAway = false;
    using proxy = await cuttingProxy(Number(new URL(server.url).port), () => ({
      down: null,
      up: isAway ? 1 : null,
    }));
    const person = new Person(["--url", `http://127.0.0.1:${proxy.port}`, "--user", "admin", "cut-off"]);
    await person.signsIn();
    await person.sees(PROMPT);
    person.type("echo before-$((40+2))\r");
    await person.sees("before-42");
    isAway = true;
    proxy.cutAll();
    await person.sees("connection lost");
    person.type("echo kept-$((40+2))\r");
    person.resize(91, 19);
    await until(() => proxy.cuts > 0);
    isAway = false;
    await person.sees("kept-42");
    person.type("stty size; exit 5\r");
    await person.sees("19 91");
    expect(await person.exited).toBe(5);
    expect(person.text.split("kept-42")).toHaveLength(2);
    expect(person.text.split("before-42")).toHaveLength(2);
  }, 60_000);

  test("begins a shell with the size of the screen that it is shown on", async () => {
    const ptys: ScriptedPty[] = [];
    await using terminals = serveTerminals({
      open: async (_id, options) => {
        const pty = new ScriptedPty(options);
        ptys.push(pty);
        return pty;
      },
    });
    const api = `{ url: "${terminals.http}", token: async () => "token-ada", call: async () => ({}) }`;
    const script = `import("${JOIN}").then(({ joinTerminal }) => joinTerminal(${api}, "${ENVIRONMENT_ID}"))`;
    const person = Bun.spawn(["bun", "-e", script], { terminal: { cols: 100, rows: 30 } });
    person.terminal?.write("x");
    await until(() => ptys[0]?.typed === "x");
    expect(ptys[0]?.sizes).toEqual([{ cols: 100, rows: 30 }]);
    person.terminal?.write(CTRL_RIGHT_BRACKET);
    expect(await person.exited).toBe(0);
  });

  test("types what came before Ctrl-] in one piece with it", async () => {
    const person = new Person(["--url", server.url, "--user", "admin", "in-one-piece"]);
    await person.signsIn();
    await person.sees(PROMPT);
    person.type(`echo typed >typed\r${CTRL_RIGHT_BRACKET}`);
    expect(await person.exited).toBe(0);
    const again = new Person(["--url", server.url, "--user", "admin", "in-one-piece"]);
    await again.signsIn();
    await again.sees(PROMPT);
    again.type("cat typed; exit\r");
    expect(await again.exited).toBe(0);
    expect(again.text).toContain("\rtyped\r\n");
  }, 60_000);

  test.each([
    { what: "at once", asked: [/^/, /^/, /^/] },
    { what: "line by line", asked: [/Username: /, /Password: /, /Opening piped/] },
  ])(
    "types what is piped in $what, to its end",
    async ({ asked }) => {
      const run = Bun.spawn([...DEVPOCKET, "connect", "--url", server.url, "piped"], {
        stdin: "pipe",
        stdout: "pipe",
        stderr: "pipe",
      });
      const said = new Output(run.stderr);
      for (const [n, line] of ["admin", TestServer.adminPassword, "echo piped-$((40+2))"].entries()) {
        await said.line(asked[n] ?? /^/);
        run.stdin.write(`${line}\n`);
        await run.stdin.flush();
      }
      await run.stdin.end();
      const shown = await new Response(run.stdout).text();
      expect(await run.exited).toBe(0);
      expect(shown).toContain("piped-42\r\n");
    },
    60_000,
  );

  test("leaves when nobody reads what it shows any more", async () => {
    const connect = `${COMMAND} connect --url ${server.url} unseen`;
    const run = Bun.spawn(["sh", "-c", `${connect} | head -c 1000 >/dev/null`], {
      stdin: Buffer.from(`admin\n${TestServer.adminPassword}\nexec yes\n`),
      env: { PATH: Bun.env.PATH ?? "" },
      stderr: "pipe",
    });
    const said = await new Response(run.stderr).text();
    expect(await run.exited).toBe(0);
    expect(said).toContain("Opening unseen");
    expect(said).not.toContain("EPIPE");
  }, 60_000);

  test("takes an address without a scheme", async () => {
    const person = new Person(["--url", new URL(server.url).host, "--user", "admin", "no-scheme"]);
    await person.signsIn();
    await person.sees(PROMPT);
    person.type("exit 3\r");
    expect(await person.exited).toBe(3);
  }, 60_000);

  test("says in one line what was refused", async () => {
    const person = new Person(["--url", server.url, "--user", "admin"]);
    await person.signsIn("not the password");
    expect(await person.exited).toBe(1);
    expect(person.text).toEndWith("devpocket: Incorrect username or password\r\n");
  });

  test.each([
    { typed: "\x03", what: "Ctrl-C" },
    { typed: "\x04", what: "the end of the input" },
  ])("ends at the prompt with $what", async ({ typed }) => {
    const person = new Person(["--url", server.url]);
    await person.sees("Username: ");
    person.type(typed);
    expect(await person.exited).toBe(1);
  });

  test("leaves on the screen what it asks for, and the answer but for the password", async () => {
    const person = new Person(["--url", server.url, "asked"]);
    await person.sees("Username: ");
    person.type("admin\r");
    await person.signsIn();
    await person.sees("Opening asked");
    const [asked, hidden] = person.text.split("\n").map(afterErasure);
    expect([asked, hidden]).toEqual(["Username: admin", "Password: "]);
    await person.sees(PROMPT);
    person.type("exit\r");
    expect(await person.exited).toBe(0);
  }, 60_000);

  test("needs an answer where nobody sits at the terminal", async () => {
    const run = Bun.spawn([...DEVPOCKET, "connect", "--url", server.url], {
      stdin: "ignore",
      stderr: "pipe",
    });
    expect(await run.exited).toBe(1);
    expect(await new Response(run.stderr).text()).toContain('no answer to "Username:"');
  });
});
