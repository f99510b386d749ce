import type { TerminalSize } from "../runtime/runtime.ts";
import type { Session } from "./session.ts";

/*
 * What clients of a terminal are told about it, besides the raw bytes of the binary protocol. Offsets count
 * the bytes that the terminal has printed since it began.
 */

const utf8 = new TextDecoder("utf-8", { ignoreBOM: true });
const encoder = new TextEncoder();

const OUTPUT = Buffer.from('{"type":"output","data":"');
const BACKSLASH = 0x5c;
const U = "u".charCodeAt(0);
const ZERO = "0".charCodeAt(0);
const HEX = Buffer.from("0123456789abcdef");
/** What follows the backslash that a byte has in JSON (RFC 8259, section 7): 0 for none, `u` for four digits. */
const ESCAPES = Uint8Array.from({ length: 256 }, (_, byte) => {
  const text = JSON.stringify(String.fromCharCode(byte));
  return text.startsWith("\\", 1) ? text.charCodeAt(2) : 0;
});
/** The longest escape, and what is before and after the output. */
const MOST_ESCAPED = 6;
const AROUND_BYTES = 128;
/** Of all terminals; it grows with what is sent at once. */
let frame = new Uint8Array(0);

/**
 * Output as JSON text: `bytes` are whole characters, what is not UTF-8 is shown as U+FFFD.
 *
 * The bytes are escaped before they become a string: to make one and then another with JSON.stringify took up to
 * twice as long, and more memory that was never touched before.
 */
export function outputMessage(bytes: Uint8Array, offset: number): string {
  const { length } = bytes;
  if (frame.length < MOST_ESCAPED * length + AROUND_BYTES) {
    frame = new Uint8Array(MOST_ESCAPED * length + AROUND_BYTES);
    frame.set(OUTPUT);
  }
  const end = escapeInto(frame, bytes, OUTPUT.length);
  const rest = `","offset":${offset},"next_offset":${offset + length}}`;
  const { written } = encoder.encodeInto(rest, frame.subarray(end));
  return utf8.decode(frame.subarray(0, end + written));
}

/** Where what was written from `to` on ends. */
function escapeInto(text: Uint8Array, bytes: Uint8Array, to: number): number {
  for (let at = 0; at < bytes.length; at++) {
    const byte = bytes[at] ?? 0;
    const escaped = ESCAPES[byte] ?? 0;
    if (escaped === 0) {
      text[to++] = byte;
      continue;
    }
    text[to++] = BACKSLASH;
    text[to++] = escaped;
    if (escaped !== U) continue;
    text[to++] = ZERO;
    text[to++] = ZERO;
    text[to++] = HEX[byte >> 4] ?? ZERO;
    text[to++] = HEX[byte & 0xf] ?? ZERO;
  }
  return to;
}

/** `bytes` can't be had any more; `restore` sets the client's terminal right for what comes from `offset` on. */
export function gapMessage(bytes: number, offset: number, restore: string) {
  return { type: "gap", bytes, offset, restore };
}

/** The size that someone else has given the terminal. */
export function sizeMessage({ cols, rows }: TerminalSize) {
  return { type: "resize", cols, rows };
}

/** What a `welcome` says of the session that was attached. */
export function sessionFields(
  session: Session,
  attachment: { offset: number; clientId: string; input: { seq: number; bytes: number } },
  { resumed, restore }: { resumed: boolean; restore: string | null },
) {
  return {
    session_id: session.id,
    resumed,
    offset: attachment.offset,
    ...(restore === null ? {} : { restore }),
    ...session.size,
    client_id: attachment.clientId,
    input_seq: attachment.input.seq,
    input_offset: attachment.input.bytes,
  };
}
