const KIB = 1024;
const MIB = 1024 * KIB;

/** Every limit of a WebSocket connection that is not configured. */
export const SOCKET_LIMITS = {
  /** Larger frames end the connection with 1009; Bun's server sees to it. */
  frameBytes: MIB,
  /** Bun ends a connection whose unsent messages pass this: nothing of ours comes near it. */
  unsentBytes: 8 * MIB,
  /** Replies to a client that reads none of them stop here. */
  unsentRepliesBytes: 256 * KIB,
  /** What may arrive before it is known who is there, and input that waits for a terminal or for the limit. */
  heldBackBytes: 4 * MIB,

  authenticationMs: 30_000,
  /** Connections that brought nothing that says who they are, and have not said so yet. */
  anonymousPerNetwork: 32,
  anonymous: 2048,

  /** Pinged at the first sweep after this: every 30 s at the latest, so that whoever is silent for longer is dead. */
  pingAfterMs: 25_000,
  /** A connection from which nothing at all has come for this long is closed. */
  silenceMs: 90_000,
  /** One that has been silent for this long, to a ping too, makes room for a new one of the same user. */
  displaceableAfterMs: 30_000,
  sweepEveryMs: 5_000,

  ticketMs: 30_000,
  tickets: 10_000,

  /** Input within this time of a message's first frame belongs to that message … */
  inputGroupMs: 600,
  /** … one message for each of these begun. */
  inputGroupBytes: 64 * KIB,
  /** Resizes closer together than this are one: the last wins. */
  resizeEveryMs: 50,
  /** Input is acknowledged this late, so that who types gets few messages besides the echo … */
  acknowledgeAfterMs: 500,
  /** … or at once, when so much of it is not. */
  acknowledgeBytes: 64 * KIB,
} as const;
