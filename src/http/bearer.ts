/** The credentials of `Authorization: Bearer` (RFC 6750 §2.1); the scheme's case does not matter. */
export function bearerToken(authorization: string | null | undefined): string | undefined {
  return /^bearer +(\S+) *$/i.exec(authorization ?? "")?.[1];
}
