import { afterEach, describe, expect, test } from "bun:test";
import { closeSync, constants, openSync, readSync, rmSync, writeSync } from "node:fs";
import { Poller, wakeByAny, wakeByTimer } from "../../../src/runtime/local/poller.ts";
import { settled, until } from "../../until.ts";

const opened: (() => void)[] = [];

afterEach(() => {
  for (const close of opened.splice(0)) close();
});

/** A pipe with a name, nobody of which waits for the other. */
function pipe(): { from: number; to: number; hangUp(): void } {
  const path = `/tmp/devpocket-pipe-${crypto.randomUUID()}`;
  Bun.spawnSync(["mkfifo", path]);
  const from = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  const to = openSync(path, constants.O_WRONLY | constants.O_NONBLOCK);
  rmSync(path);
  opened.push(() => closeSync(from));
  return { from, to, hangUp: () => closeSync(to) };
}

function read(fd: number, bytes: number): string {
  const buffer = Buffer.alloc(bytes);
  return buffer.subarray(0, readSync(fd, buffer)).toString();
}

describe.each([
  ["the kernel", wakeByAny],
  ["the clock", wakeByTimer],
])("a poller that is woken by %s", (_name, waker) => {
  test("tells of what has come, as long as it is not read", async () => {
    const poller = new Poller(waker);
    const { from, to } = pipe();
    poller.add(from);
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
    const poller = new Poller(waker);
    const [one, other] = [pipe(), pipe()];
    poller.add(one.from);
    poller.add(other.from);
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

  test("tells of each of many", async () => {
    const poller = new Poller(waker);
    const pipes = Array.from({ length: 300 }, pipe);
    const counts = new Map<number, number>();
    for (const { from } of pipes) {
      poller.add(from);
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
    for (const { hangUp } of pipes) hangUp();
  });

  test("tells of the end, and of what is there before it", async () => {
    const poller = new Poller(waker);
    const { from, to, hangUp } = pipe();
    poller.add(from);
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
    const poller = new Poller(waker);
    const [one, other] = [pipe(), pipe()];
    let isTold = false;
    poller.add(one.from);
    poller.add(other.from);
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

test("what nobody waits for wakes a poller once, not again and again", async () => {
  let wakes = 0;
  const poller = new Poller((epoll, wake) =>
    wakeByAny(epoll, () => {
      wakes++;
      wake();
    }),
  );
  const { from, to } = pipe();
  poller.add(from);
  writeSync(to, "a");
  await until(() => wakes > 0);
  await settled(() => wakes);
  expect(wakes).toBeLessThan(5);
});

test("what can't be watched is refused", () => {
  expect(() => new Poller().add(-1)).toThrow("can't be watched");
});
