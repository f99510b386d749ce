/** What it is worth to give back at once: of less, that takes longer than it saves. */
const LARGE_BYTES = 1024;

/**
 * Gives the memory of `bytes`, which nobody uses any more, back at once: `bytes` is empty then. A frame that has
 * come otherwise stays until a collection, and the next one takes memory that was never touched, which costs more than
 * the frame.
 *
 * Does nothing with little ones, and with a part of something else.
 */
export function giveBack(bytes: Uint8Array): void {
  // Of a small one the buffer alone may cost: it is made when it is asked for.
  if (bytes.byteLength < LARGE_BYTES) return;
  const { buffer } = bytes;
  if (bytes.byteLength === buffer.byteLength && buffer instanceof ArrayBuffer) buffer.transfer(0);
}
