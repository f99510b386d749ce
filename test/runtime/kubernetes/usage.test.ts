import { describe, expect, test } from "bun:test";
import { isOwnFilesystem, parseUsage } from "../../../src/runtime/kubernetes/usage.ts";

const NET = `Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     900      10    0    0    0     0          0         0      900      10    0    0    0     0       0          0
  eth0:    1000      10    0    0    0     0          0         0     2000      11    0    0    0     0       0          0
`;
const DF = `Filesystem     1024-blocks    Used Available Capacity Mounted on
/dev/vda1         41152736 2000000  37000000       6% /workspace
`;

describe("what a container tells of itself", () => {
  test("with cgroup version 2", () => {
    const text = `@cpu 100.00 80.00
usage_usec 2500000
user_usec 2000000
@memory
5000
@memory-stat
anon 3000
inactive_file 1200
@net
${NET}@df
${DF}@du
300\t/workspace
@cpu 101.00 80.00
usage_usec 2750000
`;
    expect(parseUsage(text)).toEqual({
      cpu: [
        { atSeconds: 100, usedSeconds: 2.5 },
        { atSeconds: 101, usedSeconds: 2.75 },
      ],
      memoryBytes: 3800,
      networkRxBytes: 1000,
      networkTxBytes: 2000,
      filesystem: { totalBytes: 41152736 * 1024, usedBytes: 2000000 * 1024 },
      filesBytes: 300 * 1024,
    });
  });

  test("with cgroup version 1, whose own and total figures have two names", () => {
    const text = `@cpu 100.00 80.00
2500000000
@memory
5000
@memory-stat
inactive_file 1
hierarchical_memory_limit 1000
total_inactive_file 1200
`;
    expect(parseUsage(text)).toMatchObject({
      cpu: [{ atSeconds: 100, usedSeconds: 2.5 }],
      memoryBytes: 3800,
    });
  });

  test("when it can tell nothing", () => {
    expect(parseUsage("@cpu 1 1\n@memory\n@memory-stat\n@net\n@df\n")).toEqual({
      cpu: [],
      memoryBytes: null,
      networkRxBytes: null,
      networkTxBytes: null,
      filesystem: null,
      filesBytes: null,
    });
  });
});

test.each([
  [10, 9.7, true],
  [10, 40, false],
  [10, 1, false],
])("for a volume of %d GiB a filesystem of %d is its own: %p", (volume, total, own) => {
  expect(isOwnFilesystem(total * 2 ** 30, volume * 2 ** 30)).toBe(own);
});
