import { describe, expect, test } from "bun:test";
import { passwordFault } from "../../src/auth/password-policy.ts";
import { createPasswords } from "../../src/auth/passwords.ts";

describe("hashes", () => {
  test("are argon2id with the parameters that OWASP names, salted", async () => {
    const passwords = createPasswords();
    const [first, second] = await Promise.all([passwords.hash("a password"), passwords.hash("a password")]);
    expect(first).toMatch(/^\$argon2id\$v=19\$m=19456,t=2,p=1\$/);
    expect(first).not.toBe(second);
    expect(passwords.isOutdated(first)).toBe(false);
    expect(await passwords.verify("a password", first)).toBe(true);
    expect(await passwords.verify("A password", first)).toBe(false);
  });

  test("are made and checked two at a time at most", async () => {
    const passwords = createPasswords({ concurrency: 2 });
    const { hash } = Bun.password;
    let running = 0;
    let most = 0;
    // Counted around the real thing, which still does the work.
    Bun.password.hash = async (...args) => {
      most = Math.max(most, ++running);
      return hash(...args).finally(() => running--);
    };
    try {
      await Promise.all(Array.from({ length: 8 }, (_, n) => passwords.hash(`password ${n}`)));
    } finally {
      Bun.password.hash = hash;
    }
    expect(most).toBe(2);
  });

  test("are refused while too many wait, and made again when there is room", async () => {
    const passwords = createPasswords({ concurrency: 1, maxWaiting: 2 });
    const under = Array.from({ length: 3 }, (_, n) => passwords.hash(`password ${n}`));
    for (const more of [passwords.hash("one more"), passwords.verify("one more", null)]) {
      expect(more).rejects.toMatchObject({ code: "unavailable", retryAfterSeconds: 5 });
    }
    await Promise.all(under);
    expect(await passwords.verify("one more", null)).toBe(false);
  });

  test("of nobody cost as much to check as a real one, and match nothing", async () => {
    const passwords = createPasswords();
    const real = await passwords.hash("a password");
    const took = { real: [] as number[], nobody: [] as number[] };
    // Alternating, so that what else the machine does falls on both.
    for (let n = 0; n < 9; n++) {
      for (const [name, hash] of [
        ["real", real],
        ["nobody", null],
      ] as const) {
        const begun = performance.now();
        expect(await passwords.verify("another password", hash)).toBe(false);
        took[name].push(performance.now() - begun);
      }
    }
    const median = (times: number[]) => times.sort((a, b) => a - b)[4] ?? 0;
    const ratio = median(took.nobody) / median(took.real);
    expect(ratio).toBeGreaterThan(0.5);
    expect(ratio).toBeLessThan(2);
  });
});

describe("the policy", () => {
  const owner = { username: "johndoe", email: "john.doe@example.com" };
  const cases: [password: string, code: string | null][] = [
    ["securePassword123", null],
    ["12345678 is too simple", null],
    ["aaaaaaab1", null],
    ["пароль-из-восьми", null],
    ["🔐🔑🗝🔓🔒🧷📌📎", null],
    ["x".repeat(128), null],
    ["x".repeat(129), "max_length"],
    ["🔐".repeat(128), null],
    ["seven77", "min_length"],
    ["", "min_length"],
    ["ﬁﬁﬁﬁ", null],
    ["12345678", "common_password"],
    ["PASSWORD1", "common_password"],
    ["ｐａｓｓｗｏｒｄ１", "common_password"],
    ["JohnDoe", "min_length"],
    ["john.doe", "personal_password"],
    ["JOHN.DOE@example.com", "personal_password"],
  ];
  test.each(cases)("%p is %p", (password, code) => {
    expect(passwordFault(password, owner)?.fields[0]?.code ?? null).toBe(code);
  });
});
