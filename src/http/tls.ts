import { createPrivateKey, X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import { ConfigError } from "../config/config.ts";

interface TlsFiles {
  certFile: string;
  keyFile: string;
}

/**
 * What `Bun.serve` takes as `tls`.
 *
 * @throws ConfigError when a file can't be read, is no PEM, or the key is not the certificate's
 */
export function readTls({ certFile, keyFile }: TlsFiles): Bun.TLSOptions {
  const cert = read("TLS_CERT_FILE", certFile, (pem) => new X509Certificate(pem));
  const key = read("TLS_KEY_FILE", keyFile, (pem) => createPrivateKey(pem));
  if (!cert.parsed.checkPrivateKey(key.parsed)) {
    throw new ConfigError(`TLS_KEY_FILE=${keyFile} is not the key of the certificate in ${certFile}`);
  }
  return { cert: cert.pem, key: key.pem };
}

function read<T>(variable: string, file: string, parse: (pem: string) => T): { pem: string; parsed: T } {
  let pem: string;
  try {
    pem = readFileSync(file, "utf8");
  } catch (error) {
    const reason = error instanceof Error && "code" in error ? String(error.code) : "unknown error";
    throw new ConfigError(`${variable}=${file} can't be read: ${reason}`);
  }
  try {
    return { pem, parsed: parse(pem) };
  } catch {
    throw new ConfigError(`${variable}=${file} is not in PEM form, or needs a passphrase`);
  }
}
