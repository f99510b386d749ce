/**
 * What was typed and is not known to have reached the server: sent again after a lost connection. Counted
 * in bytes, as the binary protocol does.
 */
export class KeptInput {
  /** Undefined: what is typed now is for the first that there will be. */
  #shell: string | undefined;
  #taken = 0;
  #bytes = 0;
  #pieces: Uint8Array[] = [];

  get bytes(): number {
    return this.#bytes;
  }

  push(piece: Uint8Array): void {
    this.#pieces.push(piece);
    this.#bytes += piece.length;
  }

  /** The server has everything before `offset`. */
  take(offset: number): void {
    let left = Math.min(offset - this.#taken, this.#bytes);
    if (left <= 0) return;
    this.#taken += left;
    this.#bytes -= left;
    for (;;) {
      const [first] = this.#pieces;
      if (!first) return;
      if (first.length > left) {
        this.#pieces[0] = first.subarray(left);
        return;
      }
      left -= first.length;
      this.#pieces.shift();
    }
  }

  /**
   * Over the connection that it has, what is typed goes to another shell: `offset` is where that began to take it.
   * What came before is lost with the other; what came after is there or on its way.
   */
  goOn(shell: string, offset: number): void {
    this.#shell = shell;
    this.take(offset);
  }

  /**
   * It goes to `shell`, which has taken everything before `offset`. What was meant for another is not typed
   * into it, nor into the same where that has forgotten how far it was: nobody knows what of it was applied.
   */
  goTo(shell: string, offset: number): void {
    const isForgotten = offset < this.#taken;
    if (shell !== this.#shell || isForgotten) {
      if (this.#shell !== undefined) this.#clear();
      this.#shell = shell;
      this.#taken = offset;
    }
    this.take(offset);
  }

  #clear(): void {
    this.#pieces = [];
    this.#bytes = 0;
  }

  /** All that is kept, in order. */
  [Symbol.iterator](): Iterator<Uint8Array> {
    return this.#pieces[Symbol.iterator]();
  }
}
