import { describe, expect, test } from "bun:test";
import { forwardedAddress, networkOf, siteOf } from "../../src/http/origin.ts";
import { type Running, sendRaw, serve } from "./server.ts";

describe("the address that trusted proxies have seen", () => {
  test.each([
    [null, 1, undefined],
    ["", 1, undefined],
    ["192.0.2.1", 1, "192.0.2.1"],
    ["6.6.6.6, 192.0.2.1", 1, "192.0.2.1"],
    ["6.6.6.6, 192.0.2.1, 10.0.0.1", 2, "192.0.2.1"],
    ["192.0.2.1,10.0.0.1", 2, "192.0.2.1"],
    // Did not come through both.
    ["192.0.2.1", 2, undefined],
    ["192.0.2.1:4711", 1, "192.0.2.1"],
    ["[2001:db8::1]:4711", 1, "2001:db8::1"],
    ["[2001:db8::1]", 1, undefined],
    ["2001:db8::1", 1, "2001:db8::1"],
    ["::ffff:192.0.2.1", 1, "192.0.2.1"],
    ["unknown", 1, undefined],
    ["192.0.2.1,", 1, undefined],
    ["192.0.2.999", 1, undefined],
    ["<script>", 1, undefined],
  ])("of %j with %d of them is %p", (header, proxies, address) => {
    expect(forwardedAddress(header, proxies)).toBe(address);
  });

  test("is in the request's origin; without proxies the header is anyone's claim", async () => {
    const ipOf = async (server: Running) => {
      const headers = { "X-Forwarded-For": "6.6.6.6, 192.0.2.7", "User-Agent": "tester" };
      const response = await fetch(`${server.url}/api/v1/origin`, { headers });
      return response.json();
    };
    await using direct = serve();
    expect(await ipOf(direct)).toMatchObject({ ip: "127.0.0.1", userAgent: "tester" });
    await using behindOne = serve({ config: { trustedProxies: 1 } });
    expect(await ipOf(behindOne)).toMatchObject({ ip: "192.0.2.7" });
    await using behindThree = serve({ config: { trustedProxies: 3 } });
    expect(await ipOf(behindThree)).toMatchObject({ ip: "127.0.0.1" });
  });
});

test("nobody hides by leaving out the Host header", async () => {
  await using server = serve();
  const answer = await sendRaw(server.port, ["GET /api/v1/origin HTTP/1.0\r\n\r\n"]);
  expect(answer).toContain('"ip":"127.0.0.1"');
});

test.each([
  ["192.0.2.1", "192.0.2.1", undefined],
  ["2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64", "2001:db8:1::/48"],
  ["2001:0DB8:0001:0002::", "2001:db8:1:2::/64", "2001:db8:1::/48"],
  ["2001:db8::1", "2001:db8:0:0::/64", "2001:db8:0::/48"],
  ["2001:db8:0:0:1::1", "2001:db8:0:0::/64", "2001:db8:0::/48"],
  ["::1", "0:0:0:0::/64", "0:0:0::/48"],
  ["fe80::1%eth0", "fe80:0:0:0::/64", "fe80:0:0::/48"],
  ["unknown", "unknown", undefined],
])("%s counts as %s, of the site %p", (address, network, site) => {
  expect([networkOf(address), siteOf(address)]).toEqual([network, site]);
});
