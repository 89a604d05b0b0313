import { describe, expect, it } from "vitest";
import { Slots } from "../slots.js";
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

describe("slots", () => {
  it("let so much work be under way and no more, whether or not it fails, and all of it in the end", async () => {
    const slots = new Slots(3);
    let now = 0;
    let most = 0;
    const work = async (index: number): Promise<number> => {
      most = Math.max(most, ++now);
      await new Promise((done) => setTimeout(done, 1));
      now--;
      if (index % 2 === 0) throw new Error("even");
      return index;
    };
    const results = await Promise.allSettled(Array.from({ length: 20 }, (_, index) => slots.run(() => work(index))));
    expect(results.filter(({ status }) => status === "fulfilled")).toHaveLength(10);
    expect([most, now]).toEqual([3, 0]);
  });
});
