import { afterEach, describe, expect, test } from "bun:test";
import { closeSync, constants, openSync, readSync, rmSync, writeSync } from "node:fs";
import { Poller, type Waker, wakeByKernel, wakeByTimer } from "../../../src/runtime/local/poller.ts";
import { settled, until } from "../../until.ts";

const opened: (() => void)[] = [];

afterEach(() => {
  for (const close of opened.splice(0)) close();
});

/** A pipe that `poller` watches. */
function pipe(poller: Poller): { from: number; to: number; hangUp(): void } {
  const path = `/tmp/devpocket-pipe-${crypto.randomUUID()}`;
  Bun.spawnSync(["mkfifo", path]);
  const from = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  let to: number | null = openSync(path, constants.O_WRONLY | constants.O_NONBLOCK);
  rmSync(path);
  poller.add(from);
  const hangUp = () => {
    if (to !== null) closeSync(to);
    to = null;
  };
  opened.push(() => {
    poller.remove(from);
    closeSync(from);
    hangUp();
  });
  return { from, to, hangUp };
}

/** What the kernel can't tell is told by nobody. */
const kernelOnly: Waker = (epoll, wake) =>
  wakeByKernel(epoll, wake, () => console.error("the kernel does not wake"));

function read(fd: number, bytes: number): string {
  const buffer = Buffer.alloc(bytes);
  return buffer.subarray(0, readSync(fd, buffer)).toString();
}

describe.each([
  ["the kernel", kernelOnly],
  ["the clock", wakeByTimer],
])("a poller that is woken by %s", (_name, waker) => {
  const poller = new Poller(waker);

  test("tells of what has come, as long as it is not read", async () => {
    const { from, to } = pipe(poller);
    let told = 0;
    const tell = () => void told++;
    poller.wait(from, tell);
    writeSync(to, "abcd");
    await until(() => told === 1);
    expect(read(from, 2)).toBe("ab");
    poller.wait(from, tell);
    await until(() => told === 2);
    expect(read(from, 2)).toBe("cd");
    poller.wait(from, tell);
    writeSync(to, "e");
    await until(() => told === 3);
  });

  test("tells of what has come while nobody waited", async () => {
    const [one, other] = [pipe(poller), pipe(poller)];
    writeSync(one.to, "a");
    for (let n = 0; n < 3; n++) {
      const told = Promise.withResolvers<void>();
      poller.wait(other.from, told.resolve);
      writeSync(other.to, "b");
      await told.promise;
      expect(read(other.from, 1)).toBe("b");
    }
    const told = Promise.withResolvers<void>();
    poller.wait(one.from, told.resolve);
    await told.promise;
    expect(read(one.from, 1)).toBe("a");
  });

  test("tells of another one, however long the one that was told of alone has nothing", async () => {
    const [one, other] = [pipe(poller), pipe(poller)];
    // As a terminal is: called with nothing to read, it waits again.
    const waitOn = () => poller.wait(one.from, waitOn);
    for (const { from, to } of [one, one, one, other, one, other]) {
      const told = Promise.withResolvers<void>();
      poller.wait(from, told.resolve);
      writeSync(to, "a");
      await told.promise;
      expect(read(from, 1)).toBe("a");
      if (from === one.from) waitOn();
    }
  });

  test("tells of each of many", async () => {
    const pipes = Array.from({ length: 300 }, () => pipe(poller));
    const counts = new Map<number, number>();
    for (const { from } of pipes) {
      const tell = () => {
        read(from, 1);
        counts.set(from, (counts.get(from) ?? 0) + 1);
        poller.wait(from, tell);
      };
      poller.wait(from, tell);
    }
    for (let round = 1; round <= 3; round++) {
      for (const { to } of pipes) writeSync(to, "x");
      await until(() => pipes.every(({ from }) => counts.get(from) === round));
    }
  });

  test("tells of the end, and of what is there before it", async () => {
    const { from, to, hangUp } = pipe(poller);
    expect(poller.isHungUp(from)).toBe(false);
    writeSync(to, "last");
    hangUp();
    const told = Promise.withResolvers<void>();
    poller.wait(from, told.resolve);
    await told.promise;
    await until(() => poller.isHungUp(from));
    expect(read(from, 10)).toBe("last");
    const again = Promise.withResolvers<void>();
    poller.wait(from, again.resolve);
    await again.promise;
    expect(read(from, 10)).toBe("");
  });

  test("tells nothing of one that was removed", async () => {
    const [one, other] = [pipe(poller), pipe(poller)];
    let isTold = false;
    poller.wait(one.from, () => (isTold = true));
    writeSync(one.to, "a");
    poller.remove(one.from);
    poller.remove(one.from);
    const told = Promise.withResolvers<void>();
    poller.wait(other.from, told.resolve);
    writeSync(other.to, "b");
    await told.promise;
    expect(isTold).toBe(false);
  });
});

test("the kernel tells on and on, whatever is collected meanwhile", async () => {
  const poller = new Poller(kernelOnly);
  const { from, to } = pipe(poller);
  for (let n = 0; n < 1000; n++) {
    if (n % 100 === 0) Bun.gc(true);
    const told = Promise.withResolvers<void>();
    poller.wait(from, told.resolve);
    writeSync(to, "x");
    await told.promise;
    read(from, 1);
  }
});

test("what nobody waits for wakes a poller once, not again and again", async () => {
  let wakes = 0;
  const poller = new Poller((epoll, wake) =>
    kernelOnly(epoll, () => {
      wakes++;
      wake();
    }),
  );
  const { to } = pipe(poller);
  writeSync(to, "a");
  await until(() => wakes > 0);
  await settled(() => wakes);
  expect(wakes).toBeLessThan(5);
});

test("what can't be watched is refused", () => {
  expect(() => new Poller().add(-1)).toThrow("can't be watched");
});
