/* Preloaded into a server process: what it asks Google, it asks the stand-in instead. */

const standIn = Bun.env.STAND_IN_GOOGLE ?? "";
const PLACES: Record<string, string> = {
  "https://oauth2.googleapis.com/token": `${standIn}/token`,
  "https://www.googleapis.com/oauth2/v3/certs": `${standIn}/certs`,
};

const original = globalThis.fetch;
globalThis.fetch = Object.assign(
  (input: string | URL | Request, init?: RequestInit) => {
    const url = input instanceof Request ? input.url : String(input);
    const place = PLACES[url];
    if (!place) return original(input, init);
    return original(input instanceof Request ? new Request(place, input) : place, init);
  },
  { preconnect: original.preconnect },
);
