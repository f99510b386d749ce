import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { rootCertificates } from "node:tls";
import { reduceKubeconfig } from "../../src/clusters/kubeconfig.ts";
import { vetCluster } from "../../src/clusters/vetting.ts";
import { AppError } from "../../src/errors.ts";

/* A certificate of its own for a server that answers as each test wants; a real cluster has its own tests. */
const folder = mkdtempSync(join(tmpdir(), "devpocket-test-"));
Bun.spawnSync([
  ...["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"],
  ...["-keyout", join(folder, "key"), "-out", join(folder, "crt"), "-days", "2", "-subj", "/CN=localhost"],
  ...["-addext", "subjectAltName=IP:127.0.0.1"],
]);
const tls = {
  key: readFileSync(join(folder, "key"), "utf8"),
  cert: readFileSync(join(folder, "crt"), "utf8"),
};
rmSync(folder, { recursive: true });

let server: Bun.Server<undefined> | undefined;
let identity: { uid?: string } = {};
beforeEach(() => {
  identity = { uid: "11111111" };
});
afterEach(async () => {
  await server?.stop(true);
  server = undefined;
});

function serve(answer: (path: string, review: Review) => Response | Promise<Response>): void {
  server = Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    tls,
    async fetch(request) {
      const body = request.method === "POST" ? await request.text() : "{}";
      const { spec } = JSON.parse(body);
      const { pathname } = new URL(request.url);
      if (pathname === "/api/v1/namespaces/kube-system") return Response.json({ metadata: identity });
      return answer(pathname, spec?.resourceAttributes ?? {});
    },
  });
}

interface Review {
  verb?: string;
  resource?: string;
}

async function fault(
  port: number | undefined = server?.port,
  ca = tls.cert,
): Promise<[string, string | undefined]> {
  const given = `
current-context: c
contexts: [{name: c, context: {cluster: c, user: u}}]
clusters: [{name: c, cluster: {server: "https://127.0.0.1:${port}", certificate-authority-data: ${Buffer.from(ca).toString("base64")}}}]
users: [{name: u, user: {token: s3cret}}]`;
  try {
    const uid = await vetCluster(reduceKubeconfig(given), { timeoutMs: 1000 });
    return ["fit", uid];
  } catch (error) {
    if (error instanceof AppError && error.code === "invalid") return [error.message, error.fields[0]?.code];
    throw error;
  }
}

const version = () => Response.json({ gitVersion: "v1.30.0" });
const review = (allowed: boolean) => Response.json({ status: { allowed } }, { status: 201 });

describe("vetting", () => {
  test("a cluster where everything is allowed is fit, and known by its UID", async () => {
    serve((path) => (path === "/version" ? version() : review(true)));
    expect(await fault()).toEqual(["fit", "11111111"]);
    identity = {};
    expect((await fault())[1]).toBe("not_kubernetes");
  });

  test("names everything that is not allowed, and nothing else", async () => {
    serve((path, { verb, resource }) => {
      if (path === "/version") return version();
      return review(resource !== "networkpolicies" && !(resource === "namespaces" && verb === "delete"));
    });
    const [message, code] = await fault();
    expect(code).toBe("missing_permissions");
    expect(message).toStartWith(
      "DevPocket may not delete namespaces, list networkpolicies.networking.k8s.io, watch ",
    );
    expect(message).not.toContain("pods");
  });

  test("credentials that are not accepted", async () => {
    const status = { kind: "Status", code: 401, reason: "Unauthorized", message: "Unauthorized" };
    serve(() => Response.json(status, { status: 401 }));
    expect(await fault()).toEqual(["The cluster does not accept these credentials", "unauthenticated"]);
  });

  test("an API server that won't be asked", async () => {
    serve((path) => (path === "/version" ? version() : Response.json({ kind: "Status" }, { status: 403 })));
    expect((await fault())[1]).toBe("refused");
  });

  const reviewed = (answer: () => Response) => (path: string) => (path === "/version" ? version() : answer());
  test.each<[string, (path: string) => Response]>([
    ["other JSON", () => Response.json({ hello: "world" })],
    ["null", () => Response.json(null)],
    ["a review without a verdict", reviewed(() => Response.json({}))],
    ["null for a review", reviewed(() => Response.json(null))],
  ])("%s is no answer of a Kubernetes API server", async (_what, answer) => {
    serve(answer);
    expect((await fault())[1]).toBe("not_kubernetes");
  });

  const page = () => new Response("<html>");
  const begun = () => new Response(new ReadableStream({ start: (body) => body.enqueue("{") }));
  test.each<[string, (path: string) => Response, string]>([
    ["a web page", page, "what answers does not speak JSON"],
    ["a web page for a review", reviewed(page), "what answers does not speak JSON"],
    ["a review that does not end", reviewed(begun), "no answer in time"],
  ])("%s is said to be one", async (_what, answer, words) => {
    serve(answer);
    expect(await fault()).toEqual([`The cluster can't be reached: ${words}`, "unreachable"]);
  });

  test("nobody there", async () => {
    serve(version);
    const port = server?.port;
    await server?.stop(true);
    expect(await fault(port)).toEqual(["The cluster can't be reached: connection refused", "unreachable"]);
  });

  test("a server that never answers", async () => {
    serve(() => new Promise<Response>(() => {}));
    expect(await fault()).toEqual(["The cluster can't be reached: no answer in time", "unreachable"]);
  });

  test("a certificate that the kubeconfig's CA has not signed", async () => {
    serve(version);
    expect((await fault(server?.port, rootCertificates[0]))[1]).toBe("unreachable");
  });
});
