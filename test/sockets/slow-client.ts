/**
 * A client of the binary protocol that shows output at `bytesPerMs` and acknowledges what it has shown, as
 * a phone's screen or line would.
 */
export class SlowClient {
  shownBytes = 0;
  readonly socket: WebSocket;
  readonly #bytesPerMs: number;
  readonly #wanted: { text: string; shown: () => void }[] = [];
  #offset = 0;
  #tail = "";
  #busyUntil = 0;

  constructor(url: string, { bytesPerMs }: { bytesPerMs: number }) {
    this.#bytesPerMs = bytesPerMs;
    this.socket = new WebSocket(url, { protocols: ["devpocket.v1.binary"] });
    this.socket.binaryType = "arraybuffer";
    this.socket.onmessage = ({ data }) => {
      if (typeof data !== "string") this.#take(new Uint8Array(data));
    };
  }

  /** Resolves when `text`, of one line, is shown from now on. */
  shown(text: string): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#wanted.push({ text, shown: resolve });
    return promise;
  }

  #take(bytes: Uint8Array): void {
    const now = performance.now();
    this.#busyUntil = Math.max(now, this.#busyUntil) + bytes.length / this.#bytesPerMs;
    setTimeout(() => this.#show(bytes), this.#busyUntil - now);
  }

  #show(bytes: Uint8Array): void {
    this.shownBytes += bytes.length;
    this.#offset += bytes.length;
    this.socket.send(JSON.stringify({ type: "ack", offset: this.#offset }));
    const text = this.#tail + Buffer.from(bytes).toString("latin1");
    this.#tail = text.slice(-200);
    for (const { text: wanted, shown } of [...this.#wanted]) if (text.includes(wanted)) shown();
  }
}
