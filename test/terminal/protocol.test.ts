import { expect, test } from "bun:test";
import { outputMessage } from "../../src/terminal/protocol.ts";

const utf8 = new TextDecoder("utf-8", { ignoreBOM: true });

function expectSame(bytes: Uint8Array, offset: number): void {
  const data = utf8.decode(bytes);
  const message = { type: "output", data, offset, next_offset: offset + bytes.length };
  expect(outputMessage(bytes, offset)).toBe(JSON.stringify(message));
}

test("output is told in JSON, whatever its bytes are", () => {
  for (let round = 0; round < 2000; round++) {
    const bytes = crypto.getRandomValues(new Uint8Array(round % 300));
    // Random bytes are seldom a character of more than one.
    if (round % 2 === 0) for (const [at, byte] of bytes.entries()) bytes[at] = byte & 0x7f;
    expectSame(bytes, Math.floor(Math.random() * Number.MAX_SAFE_INTEGER) - bytes.length);
  }
});

test("output of every character there is, and of nothing but control characters, is told in JSON", () => {
  const codes = Array.from({ length: 0x110000 }, (_, code) => code);
  const isSurrogate = (code: number) => code >= 0xd800 && code <= 0xdfff;
  const characters = codes.filter((code) => !isSurrogate(code)).map((code) => String.fromCodePoint(code));
  expectSame(Buffer.from(characters.join("")), 0);
  expectSame(new Uint8Array(128 * 1024), 1);
  expectSame(Buffer.from("x"), 2);
});
