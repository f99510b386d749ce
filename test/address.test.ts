import { expect, test } from "bun:test";
import { serverUrl } from "../src/address.ts";

test.each([
  { given: "localhost:8234", url: "http://localhost:8234" },
  { given: "[::1]:8234/", url: "http://[::1]:8234" },
  { given: "https://example.org", url: "https://example.org" },
  { given: "HTTPS://example.org/pocket//", url: "https://example.org/pocket" },
])("a server at $given is called by $url", ({ given, url }) => {
  expect(serverUrl(given)).toBe(url);
});
