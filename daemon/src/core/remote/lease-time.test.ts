import { describe, expect, it } from "vitest";
import { ownClock } from "./lease-time.js";

describe("a clock of one's own", () => {
  it("sleeps for as long as it is told, or until it is not to any more", async () => {
    const clock = ownClock(() => performance.now());
    const ended = new AbortController();
    const from = clock.now();
    await clock.sleep(30, ended.signal);
    expect(clock.now() - from).toBeGreaterThan(25);
    const long = clock.sleep(1e12, ended.signal);
    ended.abort();
    await long;
    await clock.sleep(1e12, ended.signal);
    expect(clock.now() - from).toBeLessThan(10_000);
  });
});
