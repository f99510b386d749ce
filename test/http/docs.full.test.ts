import { describe, expect, test } from "bun:test";
import { chromium } from "playwright-core";
import { serve, thingRoutes } from "./server.ts";

describe.if(process.env.DEVPOCKET_TEST_FULL === "1")("the reference page in a browser", () => {
  test("shows the routes and tries them, within its own policy", async () => {
    await using server = serve({ routers: [thingRoutes()] });
    const browser = await chromium.launch({
      executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
      args: [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
      ],
    });
    try {
      const page = await browser.newPage();
      const complaints: string[] = [];
      const hosts = new Set<string>();
      page.on("console", (message) => {
        if (["error", "warning"].includes(message.type())) complaints.push(message.text());
      });
      page.on("pageerror", (error) => complaints.push(String(error)));
      page.on("request", (request) => {
        if (!request.url().startsWith("data:")) hosts.add(new URL(request.url()).host);
      });
      await page.goto(`${server.url}/docs`);
      const route = page.locator(".opblock", { hasText: "/api/v1/things/{id}" });
      await route.locator(".opblock-summary-control").click();
      await route.getByPlaceholder("id").fill("seven");
      await route.getByRole("button", { name: "Execute" }).click();
      const answer = route.locator(".live-responses-table .response");
      await answer.getByText('"seven"').waitFor();
      expect(await answer.locator(".response-col_status").textContent()).toStartWith("200");
      expect(await page.locator(".info .title").textContent()).toContain("DevPocket API");
      // On a phone the page does not pan, with parameters, an answer and headers shown.
      for (const width of [320, 360, 393]) {
        await page.setViewportSize({ width, height: 800 });
        const wide = await page.evaluate("document.documentElement.scrollWidth");
        expect([width, wide]).toEqual([width, width]);
      }
      await page.setViewportSize({ width: 1280, height: 720 });
      await page.getByRole("button", { name: "Authorize" }).first().click();
      await page.getByRole("heading", { name: /bearerAuth/ }).waitFor();
      expect(complaints).toEqual([]);
      expect([...hosts]).toEqual([new URL(server.url).host]);
    } finally {
      await browser.close();
    }
  }, 60_000);
});
