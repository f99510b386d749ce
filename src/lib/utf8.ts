/**
 * How many of `bytes` end with a whole character: all of them, or all but the 1 to 3 at the end that begin a
 * UTF-8 sequence which is not finished. What can't become a valid character any more counts as whole.
 */
export function wholeCharacters(bytes: Uint8Array): number {
  const length = bytes.length;
  for (let back = 1; back <= 3 && back <= length; back++) {
    const byte = bytes[length - back] ?? 0;
    if ((byte & 0xc0) === 0x80) continue;
    return sequenceLength(byte, bytes[length - back + 1]) > back ? length - back : length;
  }
  return length;
}

/** How many bytes `bytes` begins with that can only be the end of a character: at most 3. */
export function cutCharacter(bytes: Uint8Array): number {
  let length = 0;
  while (length < 3 && ((bytes[length] ?? 0) & 0xc0) === 0x80) length++;
  return length;
}

/** Length of the sequence that `lead` begins; 1 where it begins none (RFC 3629, section 4). */
function sequenceLength(lead: number, second: number | undefined): number {
  if (lead >= 0xc2 && lead <= 0xdf) return 2;
  if (lead >= 0xe0 && lead <= 0xef) {
    if (second !== undefined && ((lead === 0xe0 && second < 0xa0) || (lead === 0xed && second > 0x9f)))
      return 1;
    return 3;
  }
  if (lead >= 0xf0 && lead <= 0xf4) {
    if (second !== undefined && ((lead === 0xf0 && second < 0x90) || (lead === 0xf4 && second > 0x8f)))
      return 1;
    return 4;
  }
  return 1;
}
