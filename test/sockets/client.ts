import { until } from "../until.ts";

type Frame = Record<string, unknown> & { type: string };

interface ClientOptions {
  protocols?: string[];
  headers?: Record<string, string>;
}

/** A WebSocket client that keeps what it was told. */
export class Client {
  readonly messages: Frame[] = [];
  readonly binary: Uint8Array[] = [];
  readonly socket: WebSocket;
  closed: { code: number; reason: string } | null = null;
  onFrame: (frame: Frame | Uint8Array) => void = () => {};

  constructor(url: string, { protocols = [], headers = {} }: ClientOptions = {}) {
    this.socket = new WebSocket(url, { protocols, headers });
    this.socket.binaryType = "arraybuffer";
    this.socket.onmessage = ({ data }) => {
      if (typeof data === "string") {
        const frame: Frame = JSON.parse(data);
        this.messages.push(frame);
        this.onFrame(frame);
      } else {
        const bytes = new Uint8Array(data);
        this.binary.push(bytes);
        this.onFrame(bytes);
      }
    };
    this.socket.onclose = ({ code, reason }) => {
      this.closed = { code, reason };
    };
    this.socket.onerror = () => {};
  }

  send(message: Record<string, unknown>): void {
    this.socket.send(JSON.stringify(message));
  }

  /** The first message of `type`, once it has come. */
  async next(type: string, nth = 0): Promise<Frame> {
    return await until(() => this.messages.filter((message) => message.type === type)[nth], {
      message: () => `no ${type} message came, but ${[...new Set(this.types)].join(", ")}`,
    });
  }

  async end(): Promise<{ code: number; reason: string }> {
    return await until(() => this.closed, { message: "the socket stays open" });
  }

  /** All text of `output` messages so far. */
  get output(): string {
    return this.messages
      .filter((message) => message.type === "output")
      .map((message) => message.data)
      .join("");
  }

  get types(): string[] {
    return this.messages.map((message) => message.type);
  }
}
