const RETRY_MS = 20;

/**
 * A client that never gives up: it connects again whenever it is cut, goes on at the next byte, and sends
 * again what the server has not taken. About what src/sockets/terminal-protocol.md shows, for both protocols.
 */
export class ResumingClient {
  /** Offset of the next byte of output. */
  offset = 0;
  connects = 0;
  gaps = 0;
  losses = 0;
  readonly #url: (query: Record<string, string | number>) => string;
  readonly #binary: boolean;
  readonly #onOutput: (bytes: Uint8Array) => void;
  #session: string | null = null;
  #socket: WebSocket | null = null;
  #isReady = false;
  #isClosed = false;
  /** Input that is not known to be taken: messages from `#seq` on, or bytes from `#inputOffset` on. */
  #unacknowledged: Uint8Array[] = [];
  #firstSeq = 1;
  #inputOffset = 0;

  constructor(
    url: (query: Record<string, string | number>) => string,
    { binary, onOutput }: { binary: boolean; onOutput: (bytes: Uint8Array) => void },
  ) {
    this.#url = url;
    this.#binary = binary;
    this.#onOutput = onOutput;
    this.#connect();
  }

  type(bytes: Uint8Array): void {
    this.#unacknowledged.push(bytes);
    if (!this.#isReady) return;
    this.#send(bytes, this.#firstSeq + this.#unacknowledged.length - 1);
  }

  get unacknowledged(): number {
    return this.#unacknowledged.length;
  }

  /** Cuts the connection from this side, without a word. */
  cut(): void {
    this.#socket?.terminate();
  }

  close(): void {
    this.#isClosed = true;
    this.#socket?.close();
  }

  #connect(): void {
    this.connects += 1;
    this.#isReady = false;
    const resume = this.#session === null ? {} : { session_id: this.#session, offset: this.offset };
    const socket = new WebSocket(this.#url({ client_id: "the-client", ...resume }), {
      protocols: this.#binary ? ["devpocket.v1.binary"] : [],
    });
    socket.binaryType = "arraybuffer";
    socket.onmessage = ({ data }) => {
      if (socket !== this.#socket) return;
      if (typeof data === "string") this.#receive(JSON.parse(data));
      else this.#output(new Uint8Array(data));
    };
    let wasOpen = false;
    socket.onopen = () => {
      wasOpen = true;
    };
    socket.onclose = async () => {
      // The server may be gone for a while.
      if (!wasOpen) await Bun.sleep(RETRY_MS);
      if (socket === this.#socket && !this.#isClosed) this.#connect();
    };
    socket.onerror = () => {};
    this.#socket = socket;
  }

  #receive(message: Record<string, unknown>): void {
    switch (message.type) {
      case "welcome":
        if (this.#session !== null && message.resumed !== true) this.losses += 1;
        this.#session = String(message.session_id);
        this.#resend(Number(message.input_seq), Number(message.input_offset));
        return;
      case "output":
        if (message.offset !== this.offset) throw new Error(`${message.offset} came, not ${this.offset}`);
        this.#output(Buffer.from(String(message.data)));
        return;
      case "gap":
        this.gaps += 1;
        this.offset = Number(message.offset);
        return;
      case "input_ack":
        this.#acknowledged(Number(message.seq), Number(message.offset));
        return;
    }
  }

  #output(bytes: Uint8Array): void {
    this.offset += bytes.length;
    this.#onOutput(bytes);
    if (this.#binary) this.#socket?.send(JSON.stringify({ type: "ack", offset: this.offset }));
  }

  #resend(seq: number, inputOffset: number): void {
    this.#acknowledged(seq, inputOffset);
    // Bytes have no numbers: over the same connection they are on their way.
    if (this.#isReady && this.#binary) return;
    this.#isReady = true;
    for (const [n, bytes] of this.#unacknowledged.entries()) this.#send(bytes, this.#firstSeq + n);
  }

  #acknowledged(seq: number, inputOffset: number): void {
    if (!this.#binary) {
      const done = Math.max(0, seq - this.#firstSeq + 1);
      this.#unacknowledged.splice(0, done);
      this.#firstSeq += done;
      return;
    }
    let done = inputOffset - this.#inputOffset;
    this.#inputOffset = inputOffset;
    while (done > 0) {
      const first = this.#unacknowledged[0];
      if (!first) throw new Error("more input was taken than was sent");
      if (first.length > done) this.#unacknowledged[0] = first.subarray(done);
      else this.#unacknowledged.shift();
      done -= first.length;
    }
  }

  #send(bytes: Uint8Array, seq: number): void {
    if (this.#binary) this.#socket?.send(bytes);
    else this.#socket?.send(JSON.stringify({ type: "input", data: Buffer.from(bytes).toString(), seq }));
  }
}
