import { type Bell, createBell } from "../../../lib/bell.ts";
import type { Hints } from "../../hints.ts";
import { cleanLine } from "../../lines.ts";
import type { EnvironmentRef, LogLine } from "../../runtime.ts";
import { parseMark, withoutSeparator } from "../../startup.ts";
import type { KubeClient } from "../api/client.ts";
import { isStatus } from "../api/errors.ts";
import { type KubeEvent, type Pod, timeMs } from "../api/objects.ts";
import { eventLine, eventTimeMs, eventVersion } from "../events.ts";
import { CONTAINER, GENERATION_ANNOTATION, startupNonce } from "../names.ts";
import { generationOfPod, hasEnded, isOver, type Sight } from "../observe.ts";
import type { Looking } from "../watch/look.ts";
import type { Mirror } from "../watch/mirror.ts";
import { openPodLog, type PodLog, type PodLogLine } from "./podlog.ts";
import {
  type ContainerPosition,
  formatCursor,
  LineCounter,
  type Position,
  parseCursor,
  sinceSeconds,
} from "./position.ts";

/** How long to wait for a hint before looking again without one. */
const LOOK_AGAIN_MS = 3_000;

/** Follows what there is of a line that is too long to be kept. */
const CUT_NOTICE = "[the rest of this line is too long to be shown]";

export interface LogsContext {
  client: KubeClient;
  looking: Looking;
  mirror: Mirror;
  hints: Hints;
}

/** One run of an environment's container: it is another one after each restart. */
interface Run {
  pod: Pod;
  restartCount: number;
  /** Its log is that of the container before the last restart. */
  previous: boolean;
  /** It had ended when it was looked at: its log, read to the end, is all there is. */
  over: boolean;
}

interface Reading {
  run: Run;
  log: PodLog;
  counter: LineCounter;
  installed: boolean;
  /** Some line of it was new. */
  hasGiven: boolean;
}

/** See Runtime.logs. */
export async function* readLogs(
  context: LogsContext,
  ref: EnvironmentRef,
  { after, signal }: { after: string | null; signal: AbortSignal },
): AsyncGenerator<LogLine> {
  const bell = createBell();
  const off = context.hints.on(({ environmentId }) => {
    if (environmentId === ref.environmentId) bell.ring();
  });
  const reader = new LogReader(context, ref, bell, parseCursor(after ?? ""));
  try {
    await reader.begin();
    while (!signal.aborted) {
      const lines = reader.ready();
      yield* lines;
      if (lines.length > 0) continue;
      const next = await reader.advance();
      if (next === "end") {
        yield* reader.remainingEvents();
        return;
      }
      if (next === "wait") await bell.wait(LOOK_AGAIN_MS, signal);
    }
  } finally {
    off();
    reader.close();
  }
}

class LogReader {
  readonly #context: LogsContext;
  readonly #ref: EnvironmentRef;
  readonly #bell: Bell;
  readonly #position: Position;
  readonly #finished = new Set<string>();
  #reading: Reading | null = null;
  #generation = 0;

  constructor(context: LogsContext, ref: EnvironmentRef, bell: Bell, position: Position | null) {
    this.#context = context;
    this.#ref = ref;
    this.#bell = bell;
    this.#position = position ?? { container: null, events: 0n };
  }

  /** Learns of which generation the events are that come before any container. */
  async begin(): Promise<void> {
    this.#learnGeneration(await this.#context.looking.look(this.#ref));
  }

  #learnGeneration({ deployment }: Sight): void {
    const annotations = deployment?.spec.template.metadata?.annotations;
    this.#generation = Number(annotations?.[GENERATION_ANNOTATION] ?? this.#generation);
  }

  /** What can be given at once: events up to the next line and its parts, or all events when there is none. */
  ready(): LogLine[] {
    const reading = this.#reading;
    for (let line = reading?.log.take(); reading && line; line = reading.log.take()) {
      // In the order in which they are given: each cursor tells of what was given before it, and of no more.
      const events = this.#eventsUntil(Number(line.atNs / 1_000_000n));
      const lines = [...events, ...this.#partsOf(reading, line)];
      // Marks show nothing, nor does what was given before: there may be more, and no ring for it.
      if (lines.length > 0) return lines;
    }
    return this.remainingEvents();
  }

  remainingEvents(): LogLine[] {
    return this.#eventsUntil(Number.POSITIVE_INFINITY);
  }

  /** `again`: there may be something to take; `wait`: not before a ring; `end`: nothing will come. */
  async advance(): Promise<"again" | "wait" | "end"> {
    const reading = this.#reading;
    const ended = reading?.log.ended() ?? false;
    if (reading && !ended && !reading.run.over) return "wait";
    const sight = await this.#context.looking.look(this.#ref);
    if (reading && !ended && !isSuperseded(reading.run, sight.pods)) return "wait";
    if (reading) {
      this.#close();
      if (reading.run.over && ended && !reading.log.wasCut()) this.#finished.add(keyOf(reading.run));
      // What ends without a new line would end so at once again.
      else if (ended && !reading.hasGiven) return "wait";
    }
    this.#learnGeneration(sight);
    const run = runsOf(sight.pods).find((one) => !this.#isPast(one));
    if (run) return (await this.#open(run)) ? "again" : "wait";
    return (await this.#isAllOver(sight)) ? "end" : "wait";
  }

  close(): void {
    this.#close();
  }

  #close(): void {
    this.#reading?.log.close();
    this.#reading = null;
  }

  #isPast(run: Run): boolean {
    const { container } = this.#position;
    if (this.#finished.has(keyOf(run))) return true;
    if (container === null) return false;
    // The cluster keeps pods that are over for as long as it likes, longer than those that came after them.
    if (container.podUid !== run.pod.metadata.uid) return createdMs(run.pod) < container.podCreatedMs;
    return run.restartCount < container.restartCount;
  }

  async #open(run: Run): Promise<boolean> {
    const { namespace = "", name = "", uid = "" } = run.pod.metadata;
    const { container } = this.#position;
    const start = container?.podUid === uid && container.restartCount === run.restartCount ? container : null;
    try {
      const log = await openPodLog(
        this.#context.client.connection,
        { namespace, pod: name, container: CONTAINER },
        {
          previous: run.previous,
          ...(start ? { sinceSeconds: sinceSeconds(start) } : {}),
          wake: this.#bell.ring,
        },
      );
      this.#reading = {
        run,
        log,
        counter: new LineCounter(start),
        installed: start?.installed ?? false,
        hasGiven: false,
      };
      return true;
    } catch (error) {
      if (!isStatus(error, 400) && !isStatus(error, 404)) throw error;
      // Gone, or not there yet. Of one that has ended there is then nothing more to read.
      if (run.over) this.#finished.add(keyOf(run));
      return run.over;
    }
  }

  /** The watch may be behind: only the cluster's own word ends a log. */
  async #isAllOver(sight: Sight & { direct: boolean }): Promise<boolean> {
    const { deployment, pods } = sight.direct ? sight : await this.#context.looking.lookDirectly(this.#ref);
    return (
      (deployment?.spec.replicas ?? 0) === 0 &&
      pods.every((pod) => runsOf([pod]).every((run) => this.#isPast(run)) && hasEnded(pod))
    );
  }

  #partsOf(reading: Reading, line: PodLogLine): LogLine[] {
    const given = reading.counter.alreadyGiven(line);
    if (given === null) return [];
    reading.hasGiven = true;
    const generation = generationOfPod(reading.run.pod);
    const nonce = startupNonce(this.#ref.environmentId, generation);
    const texts = cleanLine(line.text);
    if (line.isCut) texts.push(CUT_NOTICE);
    const parts = texts.length > 0 ? texts : [""];
    const lines: LogLine[] = [];
    parts.forEach((message, index) => {
      if (index === parts.length - 1) reading.counter.given(line);
      const mark = parseMark(message, nonce);
      const source = reading.installed ? "application" : "container";
      if (mark?.kind === "done") reading.installed = true;
      this.#position.container = this.#standing(reading, index === parts.length - 1 ? 0 : index + 1);
      if (mark || index < given) return;
      lines.push({
        atMs: Number(line.atNs / 1_000_000n),
        level: "INFO",
        source,
        message: withoutSeparator(message),
        generation,
        cursor: formatCursor(this.#position),
      });
    });
    return lines;
  }

  #standing({ run, counter, installed }: Reading, parts: number): ContainerPosition {
    const { uid = "" } = run.pod.metadata;
    return {
      podUid: uid,
      podCreatedMs: createdMs(run.pod),
      restartCount: run.restartCount,
      ...counter.position(parts),
      installed,
    };
  }

  #eventsUntil(atMs: number): LogLine[] {
    const lines: LogLine[] = [];
    for (const event of this.#context.mirror.events(this.#ref.environmentId)) {
      const version = eventVersion(event);
      if (version <= this.#position.events) continue;
      if (eventTimeMs(event) > atMs) break;
      this.#position.events = version;
      const line = eventLine(event);
      if (line) lines.push(this.#systemLine(event, line));
    }
    return lines;
  }

  #systemLine(event: KubeEvent, { level, message }: { level: LogLine["level"]; message: string }): LogLine {
    return {
      atMs: eventTimeMs(event),
      level,
      source: "system",
      message,
      generation: this.#generation,
      cursor: formatCursor(this.#position),
    };
  }
}

function keyOf({ pod, restartCount }: Run): string {
  return `${pod.metadata.uid}/${restartCount}`;
}

/**
 * The log of a run that is over ends at once. One that does not is that of the next run, which kubelet had
 * begun before the cluster knew of it.
 */
function isSuperseded({ pod, restartCount, previous }: Run, pods: Pod[]): boolean {
  const now = pods.find(({ metadata }) => metadata.uid === pod.metadata.uid);
  const status = now?.status?.containerStatuses?.find(({ name }) => name === CONTAINER);
  return !previous && (status?.restartCount ?? 0) > restartCount;
}

/** The runs whose logs the cluster still has, in order. */
function runsOf(pods: Pod[]): Run[] {
  return pods.toSorted((a, b) => createdMs(a) - createdMs(b)).flatMap(runsOfPod);
}

function createdMs(pod: Pod): number {
  return timeMs(pod.metadata.creationTimestamp) ?? 0;
}

function runsOfPod(pod: Pod): Run[] {
  const status = pod.status?.containerStatuses?.find(({ name }) => name === CONTAINER);
  const { state, lastState, restartCount = 0 } = status ?? {};
  const begun = state?.running ?? state?.terminated;
  if (!begun && !lastState?.terminated) return [];
  // Of the containers of a pod that is over (evicted, out of time) the cluster may say for ever that they run.
  const current: Run = { pod, restartCount, previous: false, over: !state?.running || isOver(pod) };
  const before: Run = { pod, restartCount: restartCount - 1, previous: true, over: true };
  // While it waits to be started again, the run that has ended last is what the cluster gives as either.
  const hasBefore = restartCount > 0 && begun !== undefined;
  return hasBefore ? [before, current] : [current];
}
