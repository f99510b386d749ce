import { expect, test } from "bun:test";
import { giveBack } from "../../src/lib/give-back.ts";

test("leaves nothing of a large chunk", () => {
  const chunk = new Uint8Array(4096);
  giveBack(chunk);
  expect([chunk.byteLength, chunk.buffer.byteLength]).toEqual([0, 0]);
});

test.each([
  ["a small one", new Uint8Array(100)],
  ["a part of something else", new Uint8Array(10_000).subarray(0, 5000)],
  ["what is shared", new Uint8Array(new SharedArrayBuffer(4096))],
])("leaves %s as it is", (_name, bytes) => {
  const { byteLength } = bytes;
  giveBack(bytes);
  expect(bytes.byteLength).toBe(byteLength);
});
