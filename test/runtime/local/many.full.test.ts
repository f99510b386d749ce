import { describe, expect, test } from "bun:test";
import { localRuntime, localSpec, reach, temporaryFolder } from "./harness.ts";

describe.if(process.env.DEVPOCKET_TEST_FULL === "1")("many environments on the local runtime", () => {
  test("200 at once all run, stop and go", async () => {
    const folder = temporaryFolder();
    const runtime = await localRuntime(folder.path, true);
    const specs = Array.from({ length: 200 }, () => localSpec({ startupCommands: ["echo hello"] }));
    const figures: Record<string, number> = { residentBefore: process.memoryUsage.rss() };
    let began = performance.now();
    let longestTurnMs = 0;
    let turn = performance.now();
    const beat = setInterval(() => {
      longestTurnMs = Math.max(longestTurnMs, performance.now() - turn - 5);
      turn = performance.now();
    }, 5);
    await Promise.all(specs.map((spec) => runtime.ensure(spec)));
    for (const spec of specs) await reach(runtime, spec, "running");
    figures.runningMs = performance.now() - began;
    figures.residentRunning = process.memoryUsage.rss();
    began = performance.now();
    await Promise.all(specs.map((spec) => runtime.usage(spec)));
    figures.usageMs = performance.now() - began;
    began = performance.now();
    await Promise.all(specs.map((spec) => runtime.stop(spec)));
    for (const spec of specs) await reach(runtime, spec, "stopped");
    figures.stoppedMs = performance.now() - began;
    await Promise.all(specs.map((spec) => runtime.remove(spec)));
    for (const spec of specs) await reach(runtime, spec, "absent");
    clearInterval(beat);
    figures.longestTurnMs = longestTurnMs;
    console.log(figures);
    expect(await runtime.list()).toEqual([]);
    await runtime.close();
    folder.remove();
  }, 120_000);
});
