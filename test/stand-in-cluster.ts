import { readFileSync } from "node:fs";
import { join } from "node:path";

const TLS = join(import.meta.dir, "http/tls");

const ANSWERS: Record<string, object> = {
  "/version": { gitVersion: "v1.30.0" },
  "/api/v1/nodes": {
    items: [
      {
        metadata: { name: "node-1" },
        spec: {},
        status: {
          allocatable: { cpu: "4", memory: "8Gi" },
          conditions: [{ type: "Ready", status: "True" }],
        },
      },
    ],
  },
};

interface ClusterOptions {
  uid?: string;
  /** What is answered otherwise than it would be. */
  answer?(method: string, path: string): Response | Promise<Response> | undefined;
}

/** As much of a Kubernetes API server as registering a cluster and looking at it needs; real ones have their own tests. */
export function openCluster({ uid = "11111111-2222-3333-4444-555555555555", answer }: ClusterOptions = {}) {
  const cert = readFileSync(join(TLS, "cert.pem"), "utf8");
  const server = Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    tls: { cert, key: readFileSync(join(TLS, "key.pem"), "utf8") },
    fetch(request) {
      const { pathname, searchParams } = new URL(request.url);
      const other = answer?.(request.method, pathname);
      if (other) return other;
      if (pathname.endsWith("/selfsubjectaccessreviews")) {
        return Response.json({ status: { allowed: true } }, { status: 201 });
      }
      if (pathname === "/api/v1/namespaces/kube-system") {
        return Response.json({ metadata: { name: "kube-system", uid } });
      }
      if (searchParams.has("watch")) return new Response(new ReadableStream());
      return Response.json(ANSWERS[pathname] ?? { metadata: { resourceVersion: "1" }, items: [] });
    },
  });
  // Its sockets hold nobody up.
  server.unref();
  return {
    kubeconfig: JSON.stringify({
      "current-context": "c",
      contexts: [{ name: "c", context: { cluster: "c", user: "u" } }],
      clusters: [
        {
          name: "c",
          cluster: {
            server: `https://127.0.0.1:${server.port}`,
            "certificate-authority-data": Buffer.from(cert).toString("base64"),
          },
        },
      ],
      users: [{ name: "u", user: { token: "s3cret" } }],
    }),
    secret: "s3cret",
  };
}
