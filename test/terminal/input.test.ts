import { describe, expect, test } from "bun:test";
import type { InputPlace } from "../../src/runtime/runtime.ts";
import { type InputStream, TerminalInput } from "../../src/terminal/input.ts";
import { TERMINAL_LIMITS } from "../../src/terminal/limits.ts";

/** Input whose far side says what it has when the test does. */
function setUp({ confirms = false, places = [] as InputPlace[] } = {}) {
  const far = { takesInput: true, typed: "", places: [] as InputPlace[] };
  const input = new TerminalInput((bytes, place) => {
    far.typed += Buffer.from(bytes).toString();
    far.places.push(place);
    return far.takesInput;
  });
  input.confirms = confirms;
  input.restore(places);
  const stream = input.attach("phone");
  const type = (text: string, seq?: number, from: InputStream = stream) => {
    const result = input.admit(from, text.length, seq);
    if (result === "taken") input.write(from, Buffer.from(text));
    return result;
  };
  return { input, stream, far, type };
}

describe("numbered messages", () => {
  test.each([
    { confirms: false, what: "written" },
    { confirms: true, what: "confirmed" },
  ])(
    "without bytes take no memory and are acknowledged once what was before them is $what",
    ({ confirms }) => {
      const { input, stream, far, type } = setUp({ confirms });
      type("", 1);
      expect(stream.taken).toEqual({ seq: 1, bytes: 0 });
      type("a", 2);
      far.takesInput = false;
      type("b", 3);
      type("c");
      for (let seq = 4; seq <= 10_000; seq++) expect(type("", seq)).toBe("taken");
      expect(stream.unwrittenMessages).toBeLessThanOrEqual(1);
      far.takesInput = true;
      input.drained();
      for (let seq = 10_001; seq <= 20_000; seq++) expect(type("", seq)).toBe("taken");
      for (const place of far.places) input.confirm(place);
      expect({ ...stream.taken, unwritten: stream.unwrittenMessages }).toEqual({
        seq: 20_000,
        bytes: 3,
        unwritten: 0,
      });
    },
  );

  test("of few bytes count for what it takes to remember them, until they are written", () => {
    const { input, far, type } = setUp();
    far.takesInput = false;
    type("x", 1);
    const fill = (from: number) => {
      for (let seq = from; ; seq++) if (type("x", seq) === "refused") return seq - from;
    };
    const { waitingInputBytes, messageBytes } = TERMINAL_LIMITS;
    const most = Math.floor(waitingInputBytes / (messageBytes + 1));
    expect(fill(2)).toBe(most);
    far.takesInput = true;
    input.drained();
    expect(far.typed.length).toBe(most + 1);
    far.takesInput = false;
    type("x", most + 2);
    expect(fill(most + 3)).toBe(most);
  });

  test("go on in the midst of one that another server has begun, and among input without numbers", () => {
    const { input, stream, far, type } = setUp({
      places: [{ client: "phone/1", bytes: 10, seq: 4, part: 3 }],
    });
    expect([type("x", 4), type("abcdef", 5), type("-")]).toEqual(["repeated", "taken", "taken"]);
    input.admit(stream, 4, 6);
    input.write(stream, Buffer.from("gh"));
    expect(far.typed).toBe("def-gh");
    expect(far.places.map(({ bytes, seq, part }) => ({ bytes, seq, part }))).toEqual([
      { bytes: 13, seq: 5, part: 0 },
      { bytes: 14, seq: 5, part: 0 },
      { bytes: 16, seq: 5, part: 2 },
    ]);
  });
});
