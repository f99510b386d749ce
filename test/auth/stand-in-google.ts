import { createHash } from "node:crypto";
import { exportJWK, generateKeyPair, type JWTPayload, SignJWT } from "jose";

export const CLIENT_ID = "123-abc.apps.googleusercontent.com";
export const CLIENT_SECRET = "GOCSPX-secret";
export const ISSUER = "https://accounts.google.com";

export const ALICE_AT_GOOGLE = {
  sub: "110169484474386276334",
  email: "alice@gmail.com",
  email_verified: true,
  name: "Alice Liddell",
  picture: "https://lh3.googleusercontent.com/a/alice",
};

/** Made once: an RSA key takes longer than a test. */
const keyPairs = (async () => ({
  signing: await generateKeyPair("RS256", { extractable: true }),
  stranger: await generateKeyPair("RS256"),
}))();

type Mood = "well" | "keys are down" | "keys are nonsense" | "token endpoint is down" | "secret is refused";

/** A server that does what Google's does: publishes keys, takes consent, exchanges codes for signed ID tokens. */
export async function openGoogle() {
  const { signing, stranger } = await keyPairs;
  const keys = [{ ...(await exportJWK(signing.publicKey)), kid: "key-1", alg: "RS256", use: "sig" }];
  const codes = new Map<string, { challenge: string; nonce: string; redirectUri: string }>();
  let mood: Mood = "well";
  let changeClaims: (claims: JWTPayload) => JWTPayload = (claims) => claims;

  const server = Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    routes: {
      "/certs": () => {
        if (mood === "keys are down") return new Response("down", { status: 503 });
        return mood === "keys are nonsense" ? Response.json({ keys: "none" }) : Response.json({ keys });
      },
      "/token": async (request) => {
        if (mood === "token endpoint is down") return new Response("down", { status: 503 });
        return exchange(new URLSearchParams(await request.text()), request.headers.get("authorization"));
      },
    },
  });

  async function exchange(form: URLSearchParams, authorization: string | null): Promise<Response> {
    const expected = `Basic ${btoa(`${CLIENT_ID}:${CLIENT_SECRET}`)}`;
    if (mood === "secret is refused" || authorization !== expected) {
      return Response.json({ error: "invalid_client" }, { status: 401 });
    }
    const code = form.get("code") ?? "";
    const grant = codes.get(code);
    codes.delete(code);
    const challenge = createHash("sha256")
      .update(form.get("code_verifier") ?? "")
      .digest("base64url");
    if (!grant || grant.challenge !== challenge || grant.redirectUri !== form.get("redirect_uri")) {
      return Response.json({ error: "invalid_grant" }, { status: 400 });
    }
    const id_token = await sign(changeClaims({ ...ALICE_AT_GOOGLE, nonce: grant.nonce }));
    return Response.json({ access_token: "opaque", token_type: "Bearer", expires_in: 3599, id_token });
  }

  /** An ID token as Google signs it, unless told otherwise. */
  function sign(
    claims: JWTPayload,
    {
      key = signing.privateKey,
      kid = "key-1",
      issuer = ISSUER,
      audience = CLIENT_ID,
      lifeSeconds = 3600,
    } = {},
  ): Promise<string> {
    const issuedAt = Math.floor(Date.now() / 1000) + 2 * Math.min(0, lifeSeconds);
    return new SignJWT(claims)
      .setProtectedHeader({ alg: "RS256", kid, typ: "JWT" })
      .setIssuer(issuer)
      .setAudience(audience)
      .setIssuedAt(issuedAt)
      .setExpirationTime(issuedAt + Math.abs(lifeSeconds))
      .sign(key);
  }

  return {
    endpoints: {
      authorize: `${server.url}authorize`,
      token: `${server.url}token`,
      keys: `${server.url}certs`,
      issuers: [ISSUER, "accounts.google.com"],
    },
    sign,
    strangersKey: stranger.privateKey,
    publicKey: signing.publicKey,
    /** What Google does when its user consents on the page at `url`: a code, sent along to the callback. */
    consent(url: URL): string {
      const code = crypto.randomUUID();
      const get = (name: string) => url.searchParams.get(name) ?? "";
      codes.set(code, {
        challenge: get("code_challenge"),
        nonce: get("nonce"),
        redirectUri: get("redirect_uri"),
      });
      return code;
    },
    is(now: Mood) {
      mood = now;
    },
    changesClaims(change: typeof changeClaims) {
      changeClaims = change;
    },
    close: () => server.stop(true),
  };
}

export type StandInGoogle = Awaited<ReturnType<typeof openGoogle>>;
