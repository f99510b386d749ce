import { ptr } from "bun:ffi";
import { constants } from "node:fs";
import { libc, O_CLOEXEC } from "./libc.ts";

/** epoll(7). Of its events a hang-up is told of whether asked for or not. */
const EPOLL = { add: 1, remove: 2, modify: 3, in: 0x1, error: 0x8, hangUp: 0x10 };
/** struct epoll_event: its size and the place of its data, in 32 bits each. It is packed on one processor only. */
const EVENT = process.arch === "x64" ? { words: 3, data: 1 } : { words: 4, data: 2 };
/** So many are told of at once; of the others with the next turn of the event loop. */
const EVENTS = 256;

/** io_setup(2) and its kin have no functions in the C library. */
const AIO =
  process.arch === "x64"
    ? { setup: 206, getEvents: 208, submit: 209 }
    : { setup: 0, getEvents: 4, submit: 2 };
const IOCB = { bytes: 64, opcode: 16, fd: 20, events: 24, flags: 56, eventfd: 60, poll: 5, tellsEventfd: 1 };
const IO_EVENT_BYTES = 32;
/** How many answers the kernel keeps before they have to be fetched, at least. */
const ANSWERS = 128;
/** How often it is looked where the kernel has no such thing. */
const LOOK_EVERY_MS = 5;

interface Watch {
  /** Called once, when there is something to read, most likely, or nobody will write any more. */
  ready: (() => void) | null;
  isAskedFor: boolean;
  isHungUp: boolean;
}

/**
 * Tells when descriptors can be read. Bun tells that of files only by reading them, each by itself and each piece into
 * memory of its own: with 500 busy terminals that took a tenth more of the processor, and hundreds of megabytes while
 * it could not keep up.
 *
 * All are in one epoll instance, level-triggered; one that nobody waits for stays in it until it is in the way.
 */
export class Poller {
  readonly #epoll: number;
  readonly #watches = new Map<number, Watch>();
  readonly #events = new Int32Array(EVENTS * EVENT.words);
  readonly #event = new Int32Array(EVENT.words);
  /** The one that was told of last, if no other was, and whether it was so twice in a row. */
  #lone = { fd: -1, isAgain: false };

  /** @throws when the system has no epoll instance left */
  constructor(waker: Waker = wakeByAny) {
    this.#epoll = libc().epoll_create1(O_CLOEXEC);
    if (this.#epoll < 0) throw new Error("there is nothing left to watch terminals with");
    waker(this.#epoll, () => this.#tell());
  }

  /** Until `remove`, before it is closed. @throws when it can't be watched */
  add(fd: number): void {
    this.#control(EPOLL.add, fd, EPOLL.in);
    this.#watches.set(fd, { ready: null, isAskedFor: true, isHungUp: false });
  }

  remove(fd: number): void {
    const watch = this.#watches.get(fd);
    if (!watch) return;
    this.#watches.delete(fd);
    if (!watch.isHungUp) this.#control(EPOLL.remove, fd, 0);
  }

  /** Nobody will write to `fd` any more; what is still in it can be read. */
  isHungUp(fd: number): boolean {
    return this.#watches.get(fd)?.isHungUp ?? true;
  }

  /**
   * Calls `ready` once when `fd` can be read, or is hung up; never if it is removed before. It may be called with
   * nothing to read, and has to wait again then.
   */
  wait(fd: number, ready: () => void): void {
    const watch = this.#watches.get(fd);
    if (!watch) return;
    watch.ready = ready;
    if (watch.isHungUp) queueMicrotask(() => this.#tellOne(fd, 0));
    else if (!watch.isAskedFor) {
      watch.isAskedFor = true;
      this.#control(EPOLL.modify, fd, EPOLL.in);
    }
  }

  #tell(): void {
    // Before it tells, epoll asks the terminal, which takes longer than reading the one that is meant most likely.
    if (this.#lone.isAgain) this.#callReady(this.#watches.get(this.#lone.fd));
    const count = libc().epoll_wait(this.#epoll, this.#events, EVENTS, 0);
    this.#learnLone(count);
    for (let at = 0; at < count * EVENT.words; at += EVENT.words) {
      this.#tellOne(this.#events[at + EVENT.data] ?? -1, this.#events[at] ?? 0);
    }
  }

  #tellOne(fd: number, events: number): void {
    const watch = this.#watches.get(fd);
    if (!watch) return;
    if ((events & (EPOLL.hangUp | EPOLL.error)) !== 0 && !watch.isHungUp) {
      watch.isHungUp = true;
      this.#control(EPOLL.remove, fd, 0);
    }
    if (!this.#callReady(watch) && !watch.isHungUp) {
      // It would be told of again and again.
      watch.isAskedFor = false;
      this.#control(EPOLL.modify, fd, 0);
    }
  }

  /** False: nobody waits for it. */
  #callReady(watch: Watch | undefined): boolean {
    const ready = watch?.ready;
    if (!watch || !ready) return false;
    watch.ready = null;
    ready();
    return true;
  }

  /** Of `count` events; where there is none, the one that was tried was the one that was meant. */
  #learnLone(count: number): void {
    if (count === 0) return;
    const fd = count === 1 ? (this.#events[EVENT.data] ?? -1) : -1;
    this.#lone = { fd, isAgain: fd !== -1 && fd === this.#lone.fd };
  }

  #control(operation: number, fd: number, events: number): void {
    this.#event[0] = events;
    this.#event[EVENT.data] = fd;
    if (libc().epoll_ctl(this.#epoll, operation, fd, this.#event) !== 0)
      throw new Error(`descriptor ${fd} can't be watched`);
  }
}

/** Calls `wake` when the epoll instance may have something to tell, for as long as the process lives. */
export type Waker = (epoll: number, wake: () => void) => void;

/** By the kernel where it can, else by the clock. */
const wakeByAny: Waker = (epoll, wake) => wakeByKernel(epoll, wake, () => wakeByTimer(epoll, wake));

/** By the kernel; `lost` is called when it can't tell, or can't any more. */
export function wakeByKernel(epoll: number, wake: () => void, lost: () => void): void {
  const poll = KernelPoll.open(epoll);
  if (poll) void poll.wake(wake).then(lost);
  else lost();
}

/** For where the kernel can't tell: it is looked again and again. */
export const wakeByTimer: Waker = (_epoll, wake) => {
  setInterval(wake, LOOK_EVERY_MS).unref();
};

/**
 * A poll by the kernel's asynchronous I/O (io_submit(2), IOCB_CMD_POLL), which counts up an eventfd when there is
 * something. That is read by Bun as any file is: of a count that it reads too early nothing is lost.
 */
class KernelPoll {
  readonly #context: number;
  readonly #count: number;
  /** The kernel is given the address of a list of this one: both are kept as long as it is. */
  readonly #poll = new DataView(new ArrayBuffer(IOCB.bytes));
  readonly #polls: BigUint64Array;
  readonly #answers = new Uint8Array(ANSWERS * IO_EVENT_BYTES);

  /** Null where the kernel has no such thing, or gives none away. */
  static open(epoll: number): KernelPoll | null {
    const context = new BigUint64Array(1);
    if (Number(libc().syscall(AIO.setup, ANSWERS, ptr(context), 0, 0, 0)) !== 0) return null;
    const count = libc().eventfd(0, constants.O_NONBLOCK | O_CLOEXEC);
    if (count < 0) return null;
    const poll = new KernelPoll(epoll, Number(context[0]), count);
    return poll.#submit() ? poll : null;
  }

  private constructor(epoll: number, context: number, count: number) {
    this.#context = context;
    this.#count = count;
    this.#poll.setUint16(IOCB.opcode, IOCB.poll, true);
    this.#poll.setUint32(IOCB.fd, epoll, true);
    this.#poll.setUint32(IOCB.events, EPOLL.in, true);
    this.#poll.setUint32(IOCB.flags, IOCB.tellsEventfd, true);
    this.#poll.setUint32(IOCB.eventfd, count, true);
    this.#polls = new BigUint64Array([BigInt(ptr(this.#poll))]);
  }

  /** Resolves when it can't be had any more. */
  async wake(wake: () => void): Promise<void> {
    const counts = Bun.file(this.#count).stream().getReader();
    do {
      await counts.read();
      wake();
    } while (this.#submitAgain());
  }

  /** One is for one time. */
  #submit(): boolean {
    return Number(libc().syscall(AIO.submit, this.#context, 1, ptr(this.#polls), 0, 0)) === 1;
  }

  /** It is refused while there are as many answers as the kernel keeps: they are fetched then. */
  #submitAgain(): boolean {
    if (this.#submit()) return true;
    libc().syscall(AIO.getEvents, this.#context, 0, ANSWERS, ptr(this.#answers), 0);
    return this.#submit();
  }
}
