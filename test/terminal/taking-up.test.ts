import { describe, expect, test } from "bun:test";
import { type HeldTerminal, RuntimeRejected, type TerminalOptions } from "../../src/runtime/runtime.ts";
import { TerminalHub } from "../../src/terminal/hub.ts";
import { until } from "../until.ts";
import { ScriptedPty } from "./ptys.ts";
import { RecordingViewer } from "./viewers.ts";

const SIZE = { cols: 80, rows: 24 };

/** A shell that an earlier server has left, with so many bytes of output. */
class LeftShell implements HeldTerminal {
  readonly offset = 0;
  readonly endOffset: number;
  readonly size = SIZE;
  readonly createdAtMs = 1;
  readonly input = [];
  isReleased = false;
  pty: ScriptedPty | undefined;

  constructor(endOffset = 0) {
    this.endOffset = endOffset;
  }

  begin(options: Omit<TerminalOptions, "size" | "sessionId">) {
    this.pty = new ScriptedPty({ ...options, size: SIZE });
    return Object.assign(this.pty, { release: () => this.release() });
  }

  release(): void {
    this.isReleased = true;
  }
}

/** A hub whose one environment has `shells`; each is there once `found` resolves. */
function setUp(shells: Record<string, LeftShell>, found: Promise<void> = Promise.resolve()) {
  const asked: string[] = [];
  const hub = new TerminalHub({
    open: async (_environmentId, options) => new ScriptedPty(options),
    held: async () => Object.keys(shells),
    async takeUp(_environmentId, id) {
      asked.push(id);
      await found;
      return shells[id] ?? null;
    },
  });
  const attach = (sessionId: string) =>
    hub.attach("env", {
      sessionId,
      offset: null,
      clientId: "client",
      size: null,
      readOnly: false,
      text: false,
      acknowledges: false,
      viewer: new RecordingViewer(),
    });
  return { hub, asked, attach };
}

describe("a shell that is being taken up", () => {
  test.each([
    { when: "the server stops", before: "it is found", end: "close", released: true, killed: undefined },
    { when: "the server stops", before: "its output is there", end: "close", released: true, killed: false },
    {
      when: "its environment stops",
      before: "it is found",
      end: "endAll",
      released: true,
      killed: undefined,
    },
    {
      when: "its environment stops",
      before: "its output is there",
      end: "endAll",
      released: false,
      killed: true,
    },
  ] as const)("when $when before $before", async ({ before, end, released, killed }) => {
    const found = Promise.withResolvers<void>();
    const shell = new LeftShell(before === "it is found" ? 0 : 5);
    const { hub, asked, attach } = setUp({ left: shell }, found.promise);
    const attaching = attach("left");
    await until(() => asked.length > 0);
    if (before === "its output is there") {
      found.resolve();
      await until(() => shell.pty);
    }
    hub[end]("env");
    found.resolve();
    shell.pty?.print("hello");
    await expect(attaching).rejects.toThrow(RuntimeRejected);
    expect({ released: shell.isReleased, killed: shell.pty?.isKilled }).toEqual({ released, killed });
    expect(hub.size).toBe(0);
  });
});
