import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { TokenBucket, Turns } from "./rate-limit.js";

function takeMany(bucket: TokenBucket, count: number): number {
  return Array.from({ length: count }, () => bucket.take()).filter(Boolean).length;
}

describe("TokenBucket", () => {
  it("gives the burst at once, then so many a second", () => {
    let now = 0;
    const bucket = new TokenBucket({ perSecond: 10, burst: 20 }, () => now);
    expect(takeMany(bucket, 100)).toBe(20);
    now = 99;
    expect(bucket.take()).toBe(false);
    now = 100;
    expect(takeMany(bucket, 100)).toBe(1);
    now = 1_100;
    expect(takeMany(bucket, 100)).toBe(10);
  });

  it("saves up no more than the burst", () => {
    let now = 0;
    const bucket = new TokenBucket({ perSecond: 10, burst: 20 }, () => now);
    now = 3_600_000;
    expect(takeMany(bucket, 100)).toBe(20);
  });

  it("never gives more than burst and rate together, whenever it is asked", () => {
    fc.assert(
      fc.property(fc.array(fc.nat(300), { maxLength: 200 }), (pauses) => {
        let now = 0;
        let given = 0;
        const bucket = new TokenBucket({ perSecond: 10, burst: 20 }, () => now);
        for (const pause of pauses) {
          now += pause;
          given += takeMany(bucket, 3);
          expect(given).toBeLessThanOrEqual(20 + now / 100 + 1e-6);
        }
      }),
    );
  });
});

describe("turns", () => {
  it("come at the rate and in order to a bounded number that waits, and to nobody after the end", async () => {
    let now = 0;
    const turns = new Turns({ perSecond: 100, burst: 1, waiting: 3 }, () => now);
    expect(turns.take()).toBe(true);
    const order: string[] = [];
    const waiting = ["a", "b", "c"].map(async (name) => {
      if (await turns.take()) order.push(name);
    });
    expect(turns.take()).toBe(false);
    now = 15;
    await waiting[0];
    expect(order).toEqual(["a"]);
    now = 25;
    await waiting[1];
    // whoever comes now is behind those that wait
    const late = turns.take();
    expect(late).toBeInstanceOf(Promise);
    turns.end();
    expect(await late).toBe(false);
    await waiting[2];
    expect(order).toEqual(["a", "b"]);
  });

  it("never give more than burst and rate together", async () => {
    const turns = new Turns({ perSecond: 200, burst: 5, waiting: 20 }, () => performance.now());
    const start = performance.now();
    const asked = await Promise.all(Array.from({ length: 30 }, async () => turns.take()));
    expect(asked.filter(Boolean)).toHaveLength(25);
    expect(performance.now() - start).toBeGreaterThanOrEqual(100);
  });
});
