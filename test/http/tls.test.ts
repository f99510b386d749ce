import { expect, test } from "bun:test";
import { join } from "node:path";
import { readTls } from "../../src/http/tls.ts";
import { serve } from "./server.ts";

const file = (name: string) => join(import.meta.dir, "tls", name);

test("a certificate and its key serve HTTPS, which is seen as such", async () => {
  const tls = readTls({ certFile: file("cert.pem"), keyFile: file("key.pem") });
  await using server = serve({ tls, config: { publicUrl: new URL("https://localhost") } });
  const response = await fetch(`${server.url}/api/v1/things/1`, { tls: { rejectUnauthorized: false } });
  expect(response.status).toBe(200);
  expect(response.headers.get("strict-transport-security")).toBe("max-age=31536000; includeSubDomains");
});

test.each([
  ["cert.pem", "nothing.pem", /^TLS_KEY_FILE=.*nothing\.pem can't be read: ENOENT$/],
  ["nothing.pem", "key.pem", /^TLS_CERT_FILE=.*nothing\.pem can't be read: ENOENT$/],
  ["key.pem", "key.pem", /^TLS_CERT_FILE=.*key\.pem is not in PEM form/],
  ["cert.pem", "cert.pem", /^TLS_KEY_FILE=.*cert\.pem is not in PEM form/],
  ["cert.pem", "other-key.pem", /^TLS_KEY_FILE=.*other-key\.pem is not the key of the certificate/],
])("%s with %s stops the start with a line that says why", (cert, key, message) => {
  expect(() => readTls({ certFile: file(cert), keyFile: file(key) })).toThrow(message);
});
