import { afterEach, beforeEach, expect, test } from "bun:test";
import { randomBytes } from "node:crypto";
import { mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readOrMakeKeys, writeKeys } from "../../src/lib/keyfile.ts";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "devpocket-test-"));
});
afterEach(() => rmSync(folder, { recursive: true }));

test("a key is made once, for its owner's eyes only, and found again", () => {
  const path = join(folder, "keys", "signing");
  const first = readOrMakeKeys(path, 32);
  expect(first).toMatchObject({ made: true, keys: [{ length: 32 }] });
  expect(readOrMakeKeys(path, 32)).toEqual({ made: false, keys: first.keys });
  expect(statSync(path).mode & 0o777).toBe(0o600);
  expect(statSync(join(folder, "keys")).mode & 0o777).toBe(0o700);
  expect(readdirSync(join(folder, "keys"))).toEqual(["signing"]);
});

test("several keys are written and read in their order, and stay private", () => {
  const path = join(folder, "vault");
  readOrMakeKeys(path, 32);
  const keys = [randomBytes(32), randomBytes(32)];
  writeKeys(path, keys);
  expect(readOrMakeKeys(path, 32)).toEqual({ made: false, keys });
  expect(statSync(path).mode & 0o777).toBe(0o600);
  expect(readdirSync(folder)).toEqual(["vault"]);
});

test("processes that start at once get the same key", async () => {
  const path = join(folder, "race");
  const source = join(import.meta.dir, "../../src/lib/keyfile.ts");
  const script = `import { readOrMakeKeys } from ${JSON.stringify(source)};
    console.log(readOrMakeKeys(${JSON.stringify(path)}, 32).keys[0].toString("hex"));`;
  const runs = Array.from({ length: 4 }, () =>
    Bun.spawn([process.execPath, "-e", script], { stdout: "pipe" }),
  );
  const keys = await Promise.all(runs.map((run) => new Response(run.stdout).text()));
  expect(new Set(keys).size).toBe(1);
  expect(keys[0]).toMatch(/^[0-9a-f]{64}\n$/);
});

test.each(["", "not base64 of 32 bytes\n", `${randomBytes(16).toString("base64")}\n`])(
  "a file that holds %p is refused and left as it is",
  (content) => {
    const path = join(folder, "broken");
    writeFileSync(path, content);
    expect(() => readOrMakeKeys(path, 32)).toThrow("does not hold keys of 32 bytes");
  },
);
