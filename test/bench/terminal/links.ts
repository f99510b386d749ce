import { tmpdir } from "node:os";

/** A way to a shell; plain data, so that it can be told to another process. */
export type Link =
  | { kind: "pty" }
  | { kind: "json" | "binary"; url: string }
  | { kind: "ttyd"; url: string }
  | { kind: "exec"; url: string; headers: Record<string, string>; tls: Record<string, string> }
  | { kind: "kubectl"; command: string[] };

/** What a measuring client needs of a terminal, whatever it goes through. */
export interface Line {
  write(text: string): void;
  /** Called for each piece of output, with its bytes and their number. */
  onData: (piece: Uint8Array | string, bytes: number) => void;
  close(): void;
}

/** The protocol asks for no less than every 32 KiB. */
const ACKNOWLEDGE_BYTES = 16 * 1024;
const ENV = { PATH: "/usr/local/bin:/usr/bin:/bin", TERM: "xterm-256color", LANG: "C.UTF-8", PS1: "$ " };

export async function open(link: Link): Promise<Line> {
  switch (link.kind) {
    case "pty":
      return openPty(["sh"]);
    case "kubectl":
      return openPty(link.command);
    case "ttyd":
      return openTtyd(link.url);
    case "exec":
      return openExec(link);
    case "json":
    case "binary":
      return openDevPocket(link);
  }
}

/** kubectl keeps a cache in its HOME: without one, in the folder it is started in. */
function kubectlEnv(): Record<string, string> {
  const { KUBECONFIG = "", HOME = tmpdir() } = process.env;
  return { KUBECONFIG, HOME };
}

/** A PTY of this process, read with nothing between. */
function openPty(command: string[]): Line {
  const child = Bun.spawn(command, {
    env: { ...ENV, ...kubectlEnv() },
    terminal: { cols: 80, rows: 24, data: (_terminal, bytes) => line.onData(bytes, bytes.byteLength) },
  });
  const line: Line = {
    write: (text) => void child.terminal?.write(text),
    onData: () => {},
    close: () => child.kill("SIGHUP"),
  };
  return line;
}

async function openDevPocket({ kind, url }: { kind: "json" | "binary"; url: string }): Promise<Line> {
  const isBinary = kind === "binary";
  const socket = new WebSocket(url, { protocols: isBinary ? ["devpocket.v1.binary"] : [] });
  socket.binaryType = "arraybuffer";
  let offset = 0;
  let acknowledged = 0;
  const attached = Promise.withResolvers<void>();
  const line: Line = {
    write: (text) =>
      socket.send(isBinary ? Buffer.from(text) : JSON.stringify({ type: "input", data: text })),
    onData: () => {},
    close: () => socket.close(),
  };
  socket.onmessage = ({ data }) => {
    if (typeof data !== "string") {
      const bytes = new Uint8Array(data);
      offset += bytes.length;
      line.onData(bytes, bytes.length);
      if (offset - acknowledged < ACKNOWLEDGE_BYTES) return;
      acknowledged = offset;
      socket.send(`{"type":"ack","offset":${offset}}`);
      return;
    }
    const message = JSON.parse(data);
    if (message.type === "output") line.onData(message.data, message.next_offset - message.offset);
    else if (message.type === "welcome" && message.session_id) attached.resolve();
  };
  socket.onclose = ({ reason }) => attached.reject(new Error(`not attached: ${reason}`));
  await attached.promise;
  return line;
}

/** ttyd's own protocol, as its web client speaks it: a command character, then the data. */
async function openTtyd(url: string): Promise<Line> {
  const socket = new WebSocket(url, { protocols: ["tty"] });
  socket.binaryType = "arraybuffer";
  const output = "0".charCodeAt(0);
  const opened = Promise.withResolvers<void>();
  const line: Line = {
    write: (text) => socket.send(Buffer.from(`0${text}`)),
    onData: () => {},
    close: () => socket.close(),
  };
  socket.onopen = () => {
    socket.send(Buffer.from(JSON.stringify({ AuthToken: "", columns: 80, rows: 24 })));
    opened.resolve();
  };
  socket.onclose = () => opened.reject(new Error("ttyd has closed the connection"));
  socket.onmessage = ({ data }) => {
    const bytes = new Uint8Array(data);
    if (bytes[0] === output) line.onData(bytes.subarray(1), bytes.length - 1);
  };
  await opened.promise;
  return line;
}

/** The exec socket of the Kubernetes API, read with nothing between. */
async function openExec(link: Extract<Link, { kind: "exec" }>): Promise<Line> {
  const socket = new WebSocket(link.url, {
    headers: link.headers,
    protocols: ["v5.channel.k8s.io", "v4.channel.k8s.io"],
    tls: link.tls,
    perMessageDeflate: false,
  });
  socket.binaryType = "arraybuffer";
  const opened = Promise.withResolvers<void>();
  const line: Line = {
    write: (text) => socket.send(Buffer.from(`\0${text}`)),
    onData: () => {},
    close: () => socket.close(),
  };
  socket.onopen = () => opened.resolve();
  socket.onclose = ({ reason }) => opened.reject(new Error(`no exec: ${reason}`));
  socket.onmessage = ({ data }) => {
    const bytes = new Uint8Array(data);
    if (bytes[0] === 1) line.onData(bytes.subarray(1), bytes.length - 1);
  };
  await opened.promise;
  return line;
}
