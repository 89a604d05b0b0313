import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { TokenBucket } from "./rate-limit.js";

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
