import { type InputPlace, PTY_INPUT_HIGH_WATER_BYTES } from "../../runtime.ts";

interface Entry {
  place: InputPlace;
  length: number;
  frame: Uint8Array;
}

/** Input that a holder has not said to have taken: it is sent again after a lost connection. */
export class UnconfirmedInput {
  readonly #entries: Entry[] = [];
  /** Bytes of each client that were taken, as far as `#entries` needs it. */
  readonly #taken = new Map<string, number>();
  #bytes = 0;
  #isFull = false;

  /** In the order in which it was typed. */
  frames(): Uint8Array[] {
    return this.#entries.map(({ frame }) => frame);
  }

  /** @returns whether more may come before `confirm` says so */
  add(entry: Entry): boolean {
    this.#entries.push(entry);
    this.#bytes += entry.length;
    this.#isFull ||= this.#bytes > PTY_INPUT_HIGH_WATER_BYTES;
    return !this.#isFull;
  }

  /** @returns whether it was full, and more may come now */
  confirm({ client, bytes }: InputPlace): boolean {
    this.#taken.set(client, bytes);
    const rest = this.#entries.findIndex(({ place }) => place.bytes > (this.#taken.get(place.client) ?? 0));
    const taken = this.#entries.splice(0, rest < 0 ? this.#entries.length : rest);
    for (const { length } of taken) this.#bytes -= length;
    if (this.#entries.length === 0) this.#taken.clear();
    if (!this.#isFull || this.#bytes > PTY_INPUT_HIGH_WATER_BYTES / 2) return false;
    this.#isFull = false;
    return true;
  }
}
