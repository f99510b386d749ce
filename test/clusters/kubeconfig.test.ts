import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { generateKeyPairSync } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { parseReduced, readKubeconfigFile, reduceKubeconfig } from "../../src/clusters/kubeconfig.ts";
import { AppError } from "../../src/errors.ts";

const tls = (name: string) =>
  readFileSync(join(import.meta.dir, "../http/tls", `${name}.pem`)).toString("base64");
const PEM = tls("cert");
const KEY = tls("key");

/** PEM on the outside only. */
const hollow = (what: string) =>
  Buffer.from(`-----BEGIN ${what}-----\nAAAA\n-----END ${what}-----\n`).toString("base64");

const LOCKED = generateKeyPairSync("ed25519").privateKey.export({
  type: "pkcs8",
  format: "pem",
  cipher: "aes-256-cbc",
  passphrase: "s3cret",
});

const CLUSTER = { server: "https://192.0.2.1:6443", "certificate-authority-data": PEM };
const USER = { token: "s3cret" };

interface Parts {
  cluster?: Record<string, unknown>;
  user?: Record<string, unknown>;
  more?: Record<string, unknown>;
}

function kubeconfig({ cluster = CLUSTER, user = USER, more = {} }: Parts = {}): string {
  return JSON.stringify({
    apiVersion: "v1",
    kind: "Config",
    "current-context": "ctx",
    contexts: [{ name: "ctx", context: { cluster: "c", user: "u" } }],
    clusters: [{ name: "c", cluster }],
    users: [{ name: "u", user }],
    ...more,
  });
}

const YAML = `apiVersion: v1
kind: Config
current-context: prod
contexts:
- name: other
  context: {cluster: elsewhere, user: plugin}
- name: prod
  context: {cluster: c, user: u, namespace: default}
clusters:
- name: c
  cluster:
    server: https://192.0.2.1:6443/
    certificate-authority-data: ${PEM}
    tls-server-name: kubernetes
- name: elsewhere
  cluster: {server: "http://192.0.2.2"}
users:
- name: u
  user: {client-certificate-data: ${PEM}, client-key-data: ${KEY}}
- name: plugin
  user: {exec: {command: aws}}
`;

function refusal(given: string): { message: string; code: string | undefined } {
  try {
    reduceKubeconfig(given);
  } catch (error) {
    if (error instanceof AppError && error.code === "invalid") {
      expect(error.fields[0]?.field).toBe("kubeconfig");
      return { message: error.message, code: error.fields[0]?.code };
    }
    throw error;
  }
  throw new Error("was accepted");
}

describe("a kubeconfig", () => {
  test.each([
    ["YAML", YAML],
    ["base64", Buffer.from(YAML).toString("base64")],
    ["base64 with line ends", Buffer.from(YAML).toString("base64").replaceAll(/.{76}/g, "$&\n")],
  ])("in %s is reduced to its current context", (_form, given) => {
    const kubeConfig = parseReduced(reduceKubeconfig(given));
    expect(kubeConfig.getCurrentCluster()).toMatchObject({
      server: "https://192.0.2.1:6443",
      caData: PEM,
      tlsServerName: "kubernetes",
    });
    expect(kubeConfig.getCurrentUser()).toMatchObject({ certData: PEM, keyData: KEY });
    expect(kubeConfig.users).toHaveLength(1);
    expect(kubeConfig.clusters).toHaveLength(1);
  });

  test("keeps nothing but what is known to be harmless", () => {
    const reduced = reduceKubeconfig(
      kubeconfig({
        cluster: { ...CLUSTER, extensions: [{ name: "x" }] },
        user: { ...USER, surprise: "x" },
        more: { preferences: { colors: true } },
      }),
    );
    expect(JSON.parse(reduced)).toEqual({
      apiVersion: "v1",
      kind: "Config",
      "current-context": "devpocket",
      contexts: [{ name: "devpocket", context: { cluster: "devpocket", user: "devpocket" } }],
      clusters: [{ name: "devpocket", cluster: CLUSTER }],
      users: [{ name: "devpocket", user: USER }],
    });
  });

  test("needs no current-context when there is one context only", () => {
    expect(reduceKubeconfig(kubeconfig({ more: { "current-context": "" } }))).toContain("s3cret");
  });

  test.each<[string, string, string, string]>([
    ["nothing", "", "does not have the form of one", "invalid_kubeconfig"],
    ["prose", "hello", "does not have the form of one", "invalid_kubeconfig"],
    ["a list", "a: b\n- c: [", "is neither YAML nor base64 of YAML", "invalid_kubeconfig"],
    ["too much", `a: ${"x".repeat(300_000)}`, "is longer than 256 KiB", "invalid_kubeconfig"],
    ["no context", kubeconfig({ more: { contexts: [] } }), 'has no context "ctx"', "invalid_kubeconfig"],
    [
      "no current context",
      kubeconfig({ more: { "current-context": null, contexts: null } }),
      "has no current-context",
      "invalid_kubeconfig",
    ],
    ["no cluster", kubeconfig({ more: { clusters: [] } }), 'has no cluster "c"', "invalid_kubeconfig"],
    ["no user", kubeconfig({ more: { users: null } }), 'has no user "u"', "invalid_kubeconfig"],
    [
      "a wrong type",
      kubeconfig({ cluster: { server: 7 } }),
      'has a cluster "c" that is not one (at server)',
      "invalid_kubeconfig",
    ],
    [
      "a wrong list",
      kubeconfig({ more: { users: "u" } }),
      "does not have the form of one (at users)",
      "invalid_kubeconfig",
    ],
    [
      "an exec plug-in",
      kubeconfig({ user: { ...USER, exec: { command: "rm" } } }),
      "uses an exec credential plug-in",
      "plugin",
    ],
    [
      "an auth provider",
      kubeconfig({ user: { "auth-provider": { name: "gcp" } } }),
      "uses an auth-provider credential plug-in",
      "plugin",
    ],
    [
      "a CA file",
      kubeconfig({ cluster: { server: CLUSTER.server, "certificate-authority": "/etc/passwd" } }),
      "names a file of the server in certificate-authority",
      "file_path",
    ],
    [
      "a certificate file",
      kubeconfig({ user: { "client-certificate": "x.crt", "client-key": "x.key" } }),
      "names a file of the server in client-certificate",
      "file_path",
    ],
    [
      "a key file",
      kubeconfig({ user: { "client-certificate-data": PEM, "client-key": "x.key" } }),
      "names a file of the server in client-key: give its content in client-key-data instead",
      "file_path",
    ],
    [
      "a token file",
      kubeconfig({ user: { tokenFile: "/proc/self/environ" } }),
      "names a file of the server in tokenFile: give its content in token instead",
      "file_path",
    ],
    [
      "a proxy",
      kubeconfig({ cluster: { ...CLUSTER, "proxy-url": "http://192.0.2.9" } }),
      "names a proxy",
      "proxy_url",
    ],
    [
      "no TLS check",
      kubeconfig({ cluster: { server: CLUSTER.server, "insecure-skip-tls-verify": true } }),
      "switches off the check",
      "insecure_tls",
    ],
    [
      "plain HTTP",
      kubeconfig({ cluster: { server: "http://192.0.2.1" } }),
      "must name an https:// server",
      "invalid_server",
    ],
    ["no address", kubeconfig({ cluster: { server: "" } }), "must name an https:// server", "invalid_server"],
    [
      "an address with a password",
      kubeconfig({ cluster: { server: "https://a:b@192.0.2.1" } }),
      "must not have credentials",
      "invalid_server",
    ],
    [
      "impersonation",
      kubeconfig({ user: { ...USER, as: "system:admin" } }),
      "impersonates someone",
      "impersonation",
    ],
    ["no credentials", kubeconfig({ user: {} }), "has no credentials", "no_credentials"],
    [
      "a broken token",
      kubeconfig({ user: { token: "s3cret\nX-Injected: yes" } }),
      "has a token with characters that no token has",
      "invalid_token",
    ],
    [
      "half a certificate",
      kubeconfig({ user: { "client-certificate-data": PEM } }),
      "has no credentials",
      "no_credentials",
    ],
    [
      "a CA that is none",
      kubeconfig({ cluster: { ...CLUSTER, "certificate-authority-data": "AAAA" } }),
      "has a certificate-authority-data that does not hold PEM",
      "invalid_pem",
    ],
    [
      "a CA that only looks like one",
      kubeconfig({ cluster: { ...CLUSTER, "certificate-authority-data": hollow("CERTIFICATE") } }),
      "has a certificate-authority-data that does not hold a certificate",
      "invalid_pem",
    ],
    [
      "a certificate that is a key",
      kubeconfig({ user: { "client-certificate-data": KEY, "client-key-data": KEY } }),
      "has a client-certificate-data that does not hold a certificate",
      "invalid_pem",
    ],
    ...[hollow("PRIVATE KEY"), PEM, Buffer.from(LOCKED).toString("base64")].map(
      (key, index): [string, string, string, string] => [
        `a key that can't be used (${index + 1})`,
        kubeconfig({ user: { "client-certificate-data": PEM, "client-key-data": key } }),
        "has a client-key-data that does not hold a private key without a passphrase",
        "invalid_pem",
      ],
    ),
    [
      "another certificate's key",
      kubeconfig({ user: { "client-certificate-data": PEM, "client-key-data": tls("other-key") } }),
      "has a client-key that is not that of its client-certificate",
      "invalid_pem",
    ],
  ])("with %s is refused", (_what, given, fault, code) => {
    const { message, code: said } = refusal(given);
    expect(message).toStartWith(`The kubeconfig ${fault}`);
    expect(said).toBe(code);
    expect(message).not.toContain("s3cret");
  });
});

describe("whatever is sent instead", () => {
  const isRefusedOrReduced = (given: string) => {
    try {
      expect(JSON.parse(reduceKubeconfig(given))["current-context"]).toBe("devpocket");
    } catch (error) {
      if (!(error instanceof AppError && error.code === "invalid")) throw error;
    }
  };

  /** Every place of a kubeconfig where something else could stand. */
  function places(value: unknown, path: string[] = []): string[][] {
    if (typeof value !== "object" || value === null) return [path];
    return [path, ...Object.entries(value).flatMap(([key, inner]) => places(inner, [...path, key]))];
  }

  function replaced(value: unknown, [key, ...rest]: string[], by: unknown): unknown {
    if (key === undefined) return by;
    if (Array.isArray(value))
      return value.map((item, i) => (String(i) === key ? replaced(item, rest, by) : item));
    const object = Object.entries(value ?? {});
    return Object.fromEntries(
      object.map(([name, inner]) => [name, name === key ? replaced(inner, rest, by) : inner]),
    );
  }

  const whole: unknown = JSON.parse(kubeconfig({ cluster: { ...CLUSTER, "proxy-url": "" } }));

  test("anything at any place is refused or harmless", () => {
    fc.assert(
      fc.property(fc.constantFrom(...places(whole)), fc.jsonValue(), (path, by) =>
        isRefusedOrReduced(JSON.stringify(replaced(whole, path, by))),
      ),
      { numRuns: 2000 },
    );
  });

  test("so is any text, in base64 too", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary", maxLength: 200 }), (given) => {
        isRefusedOrReduced(given);
        isRefusedOrReduced(`contexts: ${given}`);
        isRefusedOrReduced(Buffer.from(given).toString("base64"));
      }),
      { numRuns: 1000 },
    );
  });

  test.each([
    "contexts: &x [*x]",
    "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b]\ncontexts: [*c,*c,*c,*c,*c]",
    "contexts: [{name: __proto__, context: {cluster: __proto__, user: constructor}}]\nclusters: []\nusers: []",
  ])("%p is refused", (given) => {
    expect(refusal(given).code).toBe("invalid_kubeconfig");
  });
});

describe("the operator's own file", () => {
  let folder: string;
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), "devpocket-test-"));
    writeFileSync(join(folder, "ca.crt"), Buffer.from(PEM, "base64"));
    writeFileSync(join(folder, "ca.key"), Buffer.from(KEY, "base64"));
    writeFileSync(join(folder, "token"), "from-a-file\n");
    writeFileSync(join(folder, "noise"), "no PEM here");
  });
  afterAll(() => rmSync(folder, { recursive: true }));

  function read(parts: Parts): string {
    const file = join(folder, "kubeconfig");
    writeFileSync(file, kubeconfig(parts));
    return readKubeconfigFile(file);
  }

  test("may name files, beside itself or by their whole path; their content is taken over", () => {
    const reduced = JSON.parse(
      read({
        cluster: { server: CLUSTER.server, "certificate-authority": "ca.crt" },
        user: { "client-certificate": join(folder, "ca.crt"), "client-key": "ca.key", tokenFile: "token" },
      }),
    );
    expect(reduced.clusters[0].cluster).toEqual(CLUSTER);
    expect(reduced.users[0].user).toEqual({
      "client-certificate-data": PEM,
      "client-key-data": KEY,
      token: "from-a-file",
    });
  });

  test("may not name plug-ins, nor files that are not there or hold something else", () => {
    expect(() => read({ user: { exec: { command: "aws" } } })).toThrow("exec credential plug-in");
    expect(() => read({ user: { tokenFile: "nowhere" } })).toThrow("ENOENT");
    expect(() => read({ cluster: { server: CLUSTER.server, "certificate-authority": "noise" } })).toThrow(
      "has a certificate-authority that does not hold PEM",
    );
  });
});
