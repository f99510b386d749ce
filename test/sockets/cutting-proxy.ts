import type { Socket } from "bun";

interface Side {
  peer: Socket<Side> | null;
  /** Bytes that the other side has sent and this one has not taken yet. */
  waiting: Uint8Array[];
  /** How many more bytes go this way before the connection is cut; null: no end. */
  left: number | null;
  isClosing: boolean;
}

/** Where a connection is cut: after so many bytes in one direction, in the middle of whatever they are. */
export interface Cut {
  down: number | null;
  up: number | null;
}

/** A TCP proxy that cuts connections. `nextCut` is asked for each new connection. */
export async function cuttingProxy(port: number, nextCut: () => Cut) {
  let cuts = 0;
  const open = new Set<Socket<Side>>();

  const side = (left: number | null): Side => ({ peer: null, waiting: [], left, isClosing: false });

  /** Passes `bytes` on to `to`, whose side counts what goes its way. */
  function pass(from: Socket<Side>, bytes: Uint8Array): void {
    const to = from.data.peer;
    if (!to) return;
    const { left } = to.data;
    const part = left === null ? bytes : bytes.subarray(0, left);
    if (left !== null) to.data.left = left - part.length;
    to.data.waiting.push(new Uint8Array(part));
    flush(to);
    if (to.data.left === 0) {
      cuts += 1;
      from.terminate();
      to.terminate();
    } else if (to.data.waiting.length > 0) from.pause();
  }

  function flush(to: Socket<Side>): void {
    for (;;) {
      const first = to.data.waiting[0];
      if (!first) break;
      const written = to.write(first);
      if (written < first.length) {
        to.data.waiting[0] = first.subarray(Math.max(0, written));
        return;
      }
      to.data.waiting.shift();
    }
    to.data.peer?.resume();
  }

  const handlers = {
    data: (socket: Socket<Side>, bytes: Uint8Array) => pass(socket, bytes),
    drain: (socket: Socket<Side>) => flush(socket),
    close: (socket: Socket<Side>) => {
      open.delete(socket);
      socket.data.peer?.end();
    },
    error: () => {},
  };

  const listener = Bun.listen<Side>({
    hostname: "127.0.0.1",
    port: 0,
    socket: {
      ...handlers,
      open: async (client) => {
        open.add(client);
        const cut = nextCut();
        client.data = side(cut.down);
        client.pause();
        const server = await Bun.connect<Side>({
          hostname: "127.0.0.1",
          port,
          data: side(cut.up),
          socket: handlers,
        });
        server.data.peer = client;
        client.data.peer = server;
        client.resume();
      },
    },
  });

  return {
    port: listener.port,
    get cuts() {
      return cuts;
    },
    /** Cuts all connections that there are. */
    cutAll() {
      for (const client of open) {
        client.data.peer?.terminate();
        client.terminate();
      }
    },
    [Symbol.dispose]: () => listener.stop(true),
  };
}
