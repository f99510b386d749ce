const KIB = 1024;
const MIB = 1024 * KIB;
const SECOND = 1000;
const MINUTE = 60 * SECOND;

/** Every limit of terminals. What bounds a connection as such is in sockets/limits.ts. */
export const TERMINAL_LIMITS = {
  sessionsPerEnvironment: 16,
  /** A detached session with nothing but its shell ends after this … */
  idleGraceMs: 10 * MINUTE,
  /** … and whether it is one is looked at this often. */
  idleCheckMs: MINUTE,
  /** An ended session whose last output has reached nobody can be resumed for this long. */
  farewellMs: MINUTE,
  /** How long a killed shell may take to be gone before it is given up. */
  killMs: 5 * SECOND,
  /** A shell that is taken up and gives none of its output for this long is left for a later attempt. */
  replayStallMs: 10 * SECOND,

  scrollbackBytes: MIB,
  /**
   * Of a terminal that outlives the server: the next server has to have all that a client has not seen of what was
   * on its way through this one, a window of holder.pl's and what is ready behind it. A window of it may come while
   * readers are paused.
   */
  heldScrollbackBytes: 3 * MIB,
  /** How much may be printed at once and then each minute while nobody is attached. */
  unseenBurstBytes: 16 * MIB,
  unseenBytesPerMinute: 60 * 4 * MIB,
  /** How long the clients of a terminal that is taken up have to come back before it prints on. */
  returnMs: 10 * SECOND,
  /** Input of all clients that has been taken and waits for the far side or for its client's limits. */
  waitingInputBytes: 16 * MIB,
  /** What a message of it that is remembered by itself costs besides its bytes. */
  messageBytes: 64,
  /** So much of it is written at once. */
  inputChunkBytes: 64 * KIB,
  /** A client that comes back waits this long for its earlier input to be safe. */
  settleMs: 2 * SECOND,
  settleCheckMs: 5,
  /** Clients whose place in the input is remembered; of those that are gone the longest unused are forgotten. */
  inputStreams: 64,

  /** A piece of output of this size is part of more, which follows within the same turn of the event loop … */
  gatherFromBytes: 2 * KIB,
  /** … and is given on together, up to so much: a kernel's terminal gives 4 KiB at a time, a frame costs as much. */
  gatherBytes: 128 * KIB,
  /** What one frame of output carries at most: a quarter of the window of a client that acknowledges … */
  frameBytes: 128 * KIB,
  /** … and this for one that does not, which may be slow and shows nothing of a frame before it has come whole. */
  blindFrameBytes: 64 * KIB,
  minFrameBytes: 8 * KIB,
  /** A socket that holds back more than this is sent nothing until it has drained. */
  unsentBytes: 256 * KIB,
  /** How far a reader may be behind before it counts as held up: half its window for a slow one, see credit.ts. */
  backlogBytes: 256 * KIB,

  /** What may be on the way to an acknowledging client … */
  windowBytes: 512 * KIB,
  /** … at first, and at least. */
  initialWindowBytes: 64 * KIB,
  minWindowBytes: 32 * KIB,
  /** How long output may wait between us and a slow client, so that Ctrl-C is seen at once. */
  queueTargetMs: 25,
  /** How often the way's own delay is measured anew. */
  delayProbeMs: 30 * SECOND,
  /** A full window without any acknowledgement for this long grows. */
  stallMs: SECOND,

  maxCols: 1000,
  maxRows: 1000,
  titleCharacters: 256,
  activityEveryMs: SECOND,
} as const;
