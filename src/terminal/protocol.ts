import type { TerminalSize } from "../runtime/runtime.ts";
import type { Session } from "./session.ts";

/*
 * What clients of a terminal are told about it, besides the raw bytes of the binary protocol. Offsets count
 * the bytes that the terminal has printed since it began.
 */

const utf8 = new TextDecoder("utf-8", { ignoreBOM: true });

/** Output as JSON text: `bytes` are whole characters, what is not UTF-8 is shown as U+FFFD. */
export function outputMessage(bytes: Uint8Array, offset: number): string {
  const data = JSON.stringify(utf8.decode(bytes));
  return `{"type":"output","data":${data},"offset":${offset},"next_offset":${offset + bytes.length}}`;
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
