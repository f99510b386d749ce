import { afterAll, beforeAll, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { newId } from "../../../src/lib/ids.ts";
import {
  type EnvironmentSpec,
  PTY_INPUT_HIGH_WATER_BYTES,
  type Pty,
  RuntimeRejected,
} from "../../../src/runtime/runtime.ts";
import { onCluster } from "../../on-cluster.ts";
import { until } from "../../until.ts";
import { type Cluster, openCluster, untilPhase } from "./cluster.ts";

const TIMEOUT_MS = 150_000;
const MIB = 2 ** 20;

interface Opened {
  pty: Pty;
  text(): string;
  type(text: string): void;
  shows(wanted: string | RegExp): Promise<unknown>;
  exit: Promise<number | null>;
}

onCluster("an environment whose owner's PATH leads nowhere", () => {
  const cluster: Cluster = openCluster();
  const { runtime } = cluster;
  afterAll(() => cluster.close(), TIMEOUT_MS);

  test(
    "has its usage, and a terminal that is held",
    async () => {
      const spec = cluster.spec({ variables: { PATH: "$PATH:/workspace/bin" } });
      await runtime.ensure(spec);
      await untilPhase(runtime, spec, "running");
      let shown = "";
      const pty = await runtime.openTerminal(spec, {
        size: { cols: 80, rows: 24 },
        sessionId: newId(),
        onData: (bytes) => (shown += Buffer.from(bytes).toString("latin1")),
        onExit() {},
        onDrain() {},
      });
      pty.write(Buffer.from('echo "<$PATH>" "<$0>"\n'));
      await until(() => shown.includes("<$PATH:/workspace/bin> </"), { message: () => shown });
      expect(pty.release).toBeDefined();
      const usage = await runtime.usage(spec);
      expect(usage?.memoryBytes).toBeGreaterThan(0);
      expect(usage?.networkRxBytes).not.toBeNull();
      pty.kill();
    },
    TIMEOUT_MS,
  );
});

for (const isHeld of [false, true])
  onCluster(isHeld ? "a terminal held in a pod" : "a terminal in a pod", () => {
    const cluster: Cluster = openCluster();
    const { runtime } = cluster;
    let spec: EnvironmentSpec;

    beforeAll(async () => {
      spec = cluster.spec();
      await runtime.ensure(spec);
      await untilPhase(runtime, spec, "running");
    }, TIMEOUT_MS);
    afterAll(() => cluster.close(), TIMEOUT_MS);

    async function open(onData?: (bytes: Uint8Array) => void, onDrain = () => {}): Promise<Opened> {
      let shown = "";
      const decoder = new TextDecoder();
      const { promise: exit, resolve } = Promise.withResolvers<number | null>();
      const show = (bytes: Uint8Array) => {
        shown += decoder.decode(bytes, { stream: true });
      };
      const pty = await runtime.openTerminal(spec, {
        size: { cols: 123, rows: 45 },
        ...(isHeld ? { sessionId: newId() } : {}),
        onData: onData ?? show,
        onExit: resolve,
        onDrain,
      });
      return {
        pty,
        exit,
        text: () => shown,
        type: (text) => void pty.write(new TextEncoder().encode(text)),
        shows: (wanted) =>
          until(() => (typeof wanted === "string" ? shown.includes(wanted) : wanted.test(shown)), {
            message: () => `no ${wanted} in ${JSON.stringify(shown)}`,
          }),
      };
    }

    /** How many processes of a name run in the pod, seen from another terminal. */
    async function processes(pattern: string): Promise<number> {
      const terminal = await open();
      terminal.type(`echo count=$(grep -alz ${pattern} /proc/[0-9]*/cmdline | grep -v /self | wc -l)\n`);
      await terminal.shows(/count=\d+\r\n/);
      terminal.type("exit\n");
      await terminal.exit;
      // The grep itself carries the pattern.
      return Number(/count=(\d+)\r\n/.exec(terminal.text())?.[1]) - 1;
    }

    test("has its size from the first prompt, the workspace, bash and a terminal's variables", async () => {
      const terminal = await open();
      terminal.type("echo $(stty size) $PWD $0 $TERM $LANG $HOME\n");
      await terminal.shows("45 123 /workspace bash xterm-256color C.UTF-8 /workspace\r\n");
      expect(terminal.text()).not.toContain("devpocket;");
      terminal.pty.resize({ cols: 80, rows: 24 });
      // An exec has a channel of its own for sizes, which keeps no order with what is typed.
      terminal.type('until [ "$(stty size)" = "24 80" ]; do sleep 0.1; done; echo resized\n');
      await terminal.shows(/[\r\n]resized\r\n/);
      terminal.type("exit 7\n");
      expect(await terminal.exit).toBe(7);
    });

    test("tells the signal that ended the shell", async () => {
      const terminal = await open();
      terminal.type("kill -9 $$\n");
      expect(await terminal.exit).toBe(137);
    });

    test(
      "ends all of its processes in the pod when it is killed, and no others",
      async () => {
        const other = await open();
        other.type("sleep 4711 & echo other\n");
        await other.shows("other\r\n");
        const terminal = await open();
        terminal.type("trap '' HUP TERM; sleep 4712 & (sh -c 'sleep 4712' &) ; sleep 4712\n");
        await until(async () => (await processes("4712")) >= 3, { timeoutMs: 20_000 });
        terminal.pty.kill();
        expect(await terminal.exit).toBe(137);
        await until(async () => (await processes("4712")) === 0, { timeoutMs: 20_000 });
        expect(await processes("4711")).toBe(1);
        other.pty.kill();
        await other.exit;
        await until(async () => (await processes("4711")) === 0, { timeoutMs: 20_000 });
      },
      TIMEOUT_MS,
    );

    test(
      "lets Ctrl-C through under a flood, and holds the flood up while paused",
      async () => {
        let bytes = 0;
        const terminal = await open((chunk) => {
          bytes += chunk.length;
        });
        terminal.type("yes\n");
        await until(() => bytes > MIB);
        terminal.pty.pause();
        const settled = async () => {
          const before = bytes;
          await Bun.sleep(300);
          return bytes === before;
        };
        await until(settled);
        const before = bytes;
        await Bun.sleep(1_000);
        expect(bytes).toBe(before);
        terminal.pty.resume();
        await until(() => bytes > before + MIB);
        terminal.type("\x03");
        terminal.type("exit 3\n");
        expect(await terminal.exit).toBe(3);
      },
      TIMEOUT_MS,
    );

    test(
      "takes 8 MiB of input, says when it is held up, and loses nothing",
      async () => {
        let text = "";
        let drained = 0;
        const terminal = await open(
          (chunk) => {
            text += new TextDecoder().decode(chunk);
          },
          () => {
            drained++;
          },
        );
        const line = `${"x".repeat(63)}\n`;
        const total = (8 * MIB) / line.length;
        terminal.type(`stty -echo; sleep 2; head -c ${8 * MIB} | sha256sum; exit\n`);
        await until(() => text.includes("exit"));
        const block = new TextEncoder().encode(line.repeat(1024));
        let refusals = 0;
        for (let sent = 0; sent < total; sent += 1024) {
          if (terminal.pty.write(block)) continue;
          const before = drained;
          refusals++;
          await until(() => drained > before, { timeoutMs: 60_000 });
        }
        expect(await terminal.exit).toBe(0);
        expect(text).toContain(createHash("sha256").update(line.repeat(total)).digest("hex"));
        expect(refusals).toBeGreaterThan(0);
        expect(PTY_INPUT_HIGH_WATER_BYTES).toBeLessThan(block.length * 1024);
      },
      TIMEOUT_MS,
    );

    test(
      "brings 200 MiB byte for byte, in bounded memory",
      async () => {
        const total = 200 * MIB;
        let head = "";
        let bytes = 0;
        let peak = 0;
        const hash = createHash("sha256");
        const terminal = await open((chunk) => {
          if (bytes === 0 && !head.endsWith(">>")) {
            head += new TextDecoder().decode(chunk);
            return;
          }
          hash.update(chunk);
          bytes += chunk.length;
          peak = Math.max(peak, process.memoryUsage.rss());
        });
        terminal.type(
          `head -c ${total} /dev/urandom >data; sha256sum data; stty raw -echo; printf '>''>'; sleep 1; exec cat data\n`,
        );
        await until(() => head.endsWith(">>"), { timeoutMs: 60_000, message: () => head });
        Bun.gc(true);
        const before = process.memoryUsage.rss();
        await terminal.exit;
        const sum = /[0-9a-f]{64}(?= {2}data)/.exec(head)?.[0];
        expect(bytes).toBe(total);
        expect(hash.digest("hex")).toBe(sum ?? "");
        expect(peak - before).toBeLessThan(64 * MIB);
      },
      TIMEOUT_MS,
    );

    test("is refused where nothing runs", async () => {
      const absent = cluster.spec();
      const refusal = await runtime
        .openTerminal(absent, { size: { cols: 80, rows: 24 }, onData() {}, onExit() {}, onDrain() {} })
        .catch((error: unknown) => error);
      expect(refusal).toBeInstanceOf(RuntimeRejected);
    });
  });
