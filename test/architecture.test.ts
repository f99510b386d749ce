import { describe, expect, test } from "bun:test";
import { dirname, join, normalize } from "node:path";
import { Glob } from "bun";

/* Holds the rules of the house: the import order, and what may be used where. */

/** Ground first. A room imports only rooms of steps before its own. */
const ORDER = [
  ["lib"],
  ["errors", "config", "metrics"],
  ["db"],
  ["audit", "mail"],
  ["runtime"],
  ["terminal", "logs"],
  ["http"],
  ["auth"],
  ["templates"],
  ["clusters"],
  ["environments"],
  ["users"],
  ["sockets", "connect"],
  ["app"],
  ["main"],
];

/** Where a package or a piece of the platform may be used: rooms, or paths under src/ that begin so. */
const ONLY_IN: { what: string; uses: RegExp; allowed: string[] }[] = [
  {
    what: "the process environment",
    uses: /\bprocess\.env\b|\bBun\.env\b|\bimport\.meta\.env\b/,
    allowed: ["config/config.ts"],
  },
  {
    what: "other processes",
    uses: /\bBun\.spawn|node:child_process|\bBun\.\$|\$ }? *from "bun"/,
    // The last sets the terminal of the person who connects.
    allowed: ["runtime/local/", "connect/terminal.ts"],
  },
  {
    what: "the Kubernetes client",
    uses: /"@kubernetes\/client-node/,
    allowed: ["runtime/kubernetes/", "clusters/kubeconfig.ts"],
  },
  { what: "SQLite itself", uses: /"bun:sqlite"/, allowed: ["db", "app"] },
  {
    what: "Drizzle",
    uses: /"drizzle-orm/,
    allowed: ["db", "audit", "mail", "logs", "auth", "templates", "clusters", "environments", "users"],
  },
  {
    what: "Hono",
    uses: /"(?:hono|@hono)[/"]/,
    allowed: ["http", "auth", "templates", "clusters", "environments", "users", "sockets", "app"],
  },
  { what: "SMTP", uses: /"nodemailer/, allowed: ["mail"] },
  { what: "OAuth and tokens", uses: /"(?:arctic|jose|oslo\/(?:jwt|oauth2?|otp))"/, allowed: ["auth"] },
  { what: "the metrics registry's package", uses: /"prom-client"/, allowed: ["metrics.ts"] },
];

const FORBIDDEN: { what: string; found: RegExp }[] = [
  { what: "switches the compiler off", found: /@ts-(?:ignore|expect-error|nocheck)/ },
  { what: "passes another module's exports on", found: /^export\b[^;=]*\bfrom\s+"/m },
];

interface Source {
  /** Under src/. */
  path: string;
  text: string;
}

/** Room of a file: its folder, or for a file of src/ itself its name; what composes the program counts as app. */
function roomOf(path: string): string {
  const [first = ""] = path.split("/");
  if (first !== path) return first;
  const name = first.replace(/\.ts$/, "");
  return ORDER.flat().includes(name) ? name : "app";
}

function withoutComments(text: string): string {
  return text.replace(/\/\*[\s\S]*?\*\//g, "").replace(/(^|\s)\/\/.*$/gm, "$1");
}

function importsOf({ path, text }: Source): string[] {
  const statements =
    /^\s*(?:import|export)\b[^;"]*\bfrom\s+"([^"]+)"|^\s*import\s+"([^"]+)"|\bimport\(\s*"([^"]+)"/gm;
  return [...withoutComments(text).matchAll(statements)]
    .map(([, from, bare, dynamic]) => from ?? bare ?? dynamic ?? "")
    .filter((target) => target.startsWith("."))
    .map((target) => normalize(join(dirname(path), target)));
}

function orderFaults(source: Source): string[] {
  const own = roomOf(source.path);
  const step = (room: string) => ORDER.findIndex((rooms) => rooms.includes(room));
  if (step(own) === -1) return [`${source.path} lies in a room that has no place in the order`];
  return importsOf(source)
    .filter((target) => !target.startsWith(".."))
    .filter((target) => roomOf(target) !== own && step(roomOf(target)) >= step(own))
    .map((target) => `${source.path} imports ${target}`);
}

function placeFaults({ path, text }: Source): string[] {
  const code = withoutComments(text);
  return ONLY_IN.filter(
    ({ uses, allowed }) =>
      uses.test(code) && !allowed.some((place) => place === roomOf(path) || isWithin(path, place)),
  ).map(({ what }) => `${path} uses ${what}`);
}

function isWithin(path: string, place: string): boolean {
  return place === path || (place.endsWith("/") && path.startsWith(place));
}

function forbiddenFaults({ path, text }: Source): string[] {
  return FORBIDDEN.filter(({ found }) => found.test(text)).map(({ what }) => `${path} ${what}`);
}

/** Files that import each other in a circle; types count, for a reader has to follow them too. */
function circles(sources: Source[]): string[] {
  const imports = new Map(sources.map((source) => [source.path, importsOf(source)]));
  const done = new Set<string>();
  const found: string[] = [];
  const visit = (path: string, trail: string[]) => {
    if (trail.includes(path)) {
      found.push([...trail.slice(trail.indexOf(path)), path].join(" → "));
      return;
    }
    if (done.has(path)) return;
    for (const target of imports.get(path) ?? []) visit(target, [...trail, path]);
    done.add(path);
  };
  for (const { path } of sources) visit(path, []);
  return found;
}

async function read(folder: string, pattern: string): Promise<Source[]> {
  const root = join(import.meta.dir, "..", folder);
  const paths = await Array.fromAsync(new Glob(pattern).scan(root));
  return Promise.all(
    paths.sort().map(async (path) => ({ path, text: await Bun.file(join(root, path)).text() })),
  );
}

const sources = await read("src", "**/*.ts");

describe("the house", () => {
  test("is there to be looked at", () => {
    expect(sources.length).toBeGreaterThan(40);
    expect(sources.flatMap(importsOf).length).toBeGreaterThan(100);
  });

  test("keeps the import order: no room imports one after it", () => {
    expect(sources.flatMap(orderFaults)).toEqual([]);
  });

  test("imports only files that exist", () => {
    const paths = new Set(sources.map(({ path }) => path));
    const lost = sources.flatMap((source) =>
      importsOf(source)
        .filter((target) => target.endsWith(".ts") && !target.startsWith("..") && !paths.has(target))
        .map((target) => `${source.path} imports ${target}`),
    );
    expect(lost).toEqual([]);
  });

  test("has no circle of imports", () => {
    expect(circles(sources)).toEqual([]);
  });

  test("uses what reaches outside only in its place", () => {
    expect(sources.flatMap(placeFaults)).toEqual([]);
  });

  test("switches no check off and has no barrels", () => {
    expect(sources.flatMap(forbiddenFaults)).toEqual([]);
    const barrels = sources.filter(({ path }) => /(?:^|\/)index\.ts$/.test(path));
    expect(barrels).toEqual([]);
  });

  test("has no room for odds and ends", () => {
    const odds = /(?:^|\/)(?:services?|utils?|helpers?|managers?|common|misc|shared)(?:\/|\.ts$)/;
    expect(sources.filter(({ path }) => odds.test(path))).toEqual([]);
  });

  test("has ground that knows nothing of it: lib uses only the platform and itself", () => {
    const others = sources
      .filter(({ path }) => path.startsWith("lib/"))
      .flatMap(({ path, text }) =>
        [...withoutComments(text).matchAll(/\bfrom\s+"([^"]+)"/g)]
          .map(([, target = ""]) => target)
          .filter((target) => !/^(?:\.\/|node:|bun)/.test(target))
          .map((target) => `${path} imports ${target}`),
      );
    expect(others).toEqual([]);
  });
});

test("tests replace no modules", async () => {
  const tests = await read("test", "**/*.ts");
  const own = "architecture.test.ts";
  const faults = tests.filter(
    ({ path, text }) => path !== own && /\bmock\.module\b|\bjest\.mock\b/.test(text),
  );
  expect(faults.map(({ path }) => path)).toEqual([]);
});

describe("a fault is found when", () => {
  test.each([
    ["http/x.ts", 'import { a } from "../environments/rows.ts";', orderFaults],
    ["logs/x.ts", 'import type { A } from "../terminal/hub.ts";', orderFaults],
    ["auth/x.ts", 'import {\n  a,\n  b,\n} from "../app.ts";', orderFaults],
    ["app.ts", 'const late = await import("./main.ts");', orderFaults],
    ["attic/x.ts", "", orderFaults],
    ["lib/x.ts", 'import { b } from "../serve.ts";', orderFaults],
    ["auth/x.ts", "const home = process.env.HOME;", placeFaults],
    ["environments/x.ts", 'Bun.spawn(["true"]);', placeFaults],
    ["clusters/x.ts", 'import type { V1Pod } from "@kubernetes/client-node";', placeFaults],
    ["terminal/x.ts", 'import { eq } from "drizzle-orm";', placeFaults],
    ["users/x.ts", 'import { Database } from "bun:sqlite";', placeFaults],
    ["dbx/x.ts", 'import { Database } from "bun:sqlite";', placeFaults],
    ["logs/x.ts", 'import type { Context } from "hono";', placeFaults],
    ["lib/x.ts", "// @ts-ignore", forbiddenFaults],
    ["auth/x.ts", 'export { a } from "./b.ts";', forbiddenFaults],
    ["auth/x.ts", 'export * from "./b.ts";', forbiddenFaults],
  ])("%s holds %p", (path, text, faults) => {
    expect(faults({ path, text })).toHaveLength(1);
  });

  test.each([
    [
      "environments/x.ts",
      '/* Bun.spawn and process.env are not for here */ import { a } from "../db/open.ts";',
    ],
    ["runtime/local/x.ts", 'Bun.spawn(["true"]);'],
    ["main.ts", 'import { createApp } from "./app.ts";'],
    ["serve.ts", 'import { createApp } from "./app.ts";\nconst url = "https://example.org/process";'],
    ["auth/x.ts", 'import { b } from "./b.ts";\nexport const from = "here";'],
  ])("and none when %s holds %p", (path, text) => {
    const source = { path, text };
    expect([...orderFaults(source), ...placeFaults(source), ...forbiddenFaults(source)]).toEqual([]);
  });

  test("files import each other in a circle", () => {
    const circle = [
      { path: "a/x.ts", text: 'import "../b/y.ts";' },
      { path: "b/y.ts", text: 'import { z } from "./z.ts";' },
      { path: "b/z.ts", text: 'import type { X } from "../a/x.ts";' },
    ];
    expect(circles(circle)).toEqual(["a/x.ts → b/y.ts → b/z.ts → a/x.ts"]);
  });
});
