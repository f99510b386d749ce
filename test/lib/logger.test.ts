import { expect, test } from "bun:test";
import { batched, createLogger, LOG_LEVELS, type LogFields } from "../../src/lib/logger.ts";

function logger(format: "text" | "json", level: (typeof LOG_LEVELS)[number] = "debug") {
  const written: string[] = [];
  const log = createLogger({ format, level, write: (line) => written.push(line), now: () => 0 });
  return { log, written };
}

test.each(LOG_LEVELS.map((level, index) => [level, LOG_LEVELS.slice(index)] as const))(
  "at level %s only %p are written",
  (level, shown) => {
    const { log, written } = logger("json", level);
    for (const name of LOG_LEVELS) log[name]("event");
    expect(written.map((line) => JSON.parse(line).level)).toEqual([...shown]);
  },
);

test("JSON lines hold time, level, message and the fields, each event on one line", () => {
  const { log, written } = logger("json");
  log.warn("two\nlines", { user: "ada", count: 3, absent: undefined, error: new TypeError("bad\nthing") });
  expect(written).toHaveLength(1);
  expect(written[0]).toEndWith("}\n");
  expect(written[0]?.indexOf("\n")).toBe((written[0]?.length ?? 0) - 1);
  expect(JSON.parse(written[0] ?? "")).toEqual({
    time: "1970-01-01T00:00:00.000Z",
    level: "warn",
    message: "two\nlines",
    user: "ada",
    count: 3,
    error: "TypeError: bad\nthing",
  });
});

test.each<[string, LogFields, string]>([
  ["nothing", {}, ""],
  ["a word", { path: "/api/v1" }, " path=/api/v1"],
  ["words", { text: "two words" }, ' text="two words"'],
  ["an empty text", { text: "" }, ' text=""'],
  ["quotes and line ends", { text: 'a "quote"\n' }, ' text="a \\"quote\\"\\n"'],
  ["numbers and what is not there", { count: 3, none: null, absent: undefined }, " count=3 none=null"],
  ["a list", { list: [1, "b"] }, ' list=[1,"b"]'],
  ["an error", { error: new Error("gone") }, ' error="Error: gone"'],
])("a readable line shows %s", (_, fields, shown) => {
  const { log, written } = logger("text");
  log.info("event", fields);
  expect(written).toEqual([`1970-01-01T00:00:00.000Z INFO  event${shown}\n`]);
});

test("lines of one turn of the event loop are written together, in order, and each once", async () => {
  const written: string[] = [];
  const write = batched((text) => written.push(text));
  write("a\n");
  write("b\n");
  expect(written).toEqual([]);
  await new Promise((resolve) => setImmediate(resolve));
  expect(written).toEqual(["a\nb\n"]);
  write("c\n");
  await new Promise((resolve) => setImmediate(resolve));
  expect(written).toEqual(["a\nb\n", "c\n"]);
});

test.each(["process.exit(3)", "setTimeout(() => { throw new Error('gone') })"])(
  "what was logged before %s is written",
  async (end) => {
    const module = new URL("../../src/lib/logger.ts", import.meta.url).pathname;
    const program = `
      import { createLogger } from ${JSON.stringify(module)};
      createLogger({ format: "json", level: "info" }).info("the last line");
      ${end};
    `;
    const child = Bun.spawn([process.execPath, "-e", program], { stderr: "pipe", stdout: "ignore" });
    expect(await child.stderr.text()).toContain('"message":"the last line"');
    expect(await child.exited).not.toBe(0);
  },
);
