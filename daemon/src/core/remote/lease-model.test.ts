import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { LeaseWorld } from "../testing/lease-world.js";

const worlds = fc.record({
  seed: fc.integer({ min: 0, max: 2 ** 31 }),
  machines: fc.integer({ min: 2, max: 4 }),
  ids: fc.constantFrom(["a"], ["a", "b"], ["a", "b", "c"]),
  leaseS: fc.constantFrom(8, 12, 30),
  clockErrorMs: fc.constantFrom(0, 300, 1_000),
  drift: fc.constantFrom(0, 0.05),
  faults: fc.constantFrom(0, 20, 100),
  slowMs: fc.constantFrom(200, 5_000, 40_000),
  idleMs: fc.constantFrom(50, 300, 3_000),
});

/** Where the clocks are as wrong as they may be, and everybody is after the same sandbox. */
const hard = fc.record({
  seed: fc.integer({ min: 0, max: 2 ** 31 }),
  machines: fc.constant(4),
  ids: fc.constant(["a"]),
  leaseS: fc.constant(8),
  clockErrorMs: fc.constantFrom(0, 1_800),
  drift: fc.constant(0.05),
  faults: fc.constant(20),
  slowMs: fc.constant(5_000),
  idleMs: fc.constant(50),
});

describe("machines that share a store", () => {
  it("never run a sandbox at the same time, and save nothing once they are shut out, whatever happens", async () => {
    const counts = new Map<string, number>();
    await fc.assert(
      fc.asyncProperty(fc.oneof(worlds, hard), async (options) => {
        const world = new LeaseWorld(options);
        await world.run(200_000);
        for (const [kind, count] of world.history.counts) counts.set(kind, (counts.get(kind) ?? 0) + count);
        expect(world.history.violations.slice(0, 5)).toEqual([]);
      }),
      { numRuns: 10 },
    );
    // all of it did happen
    for (const kind of ["saved", "expired", "released", "killed", "left behind", "stopped", "refused: sandbox_leased"])
      expect([kind, counts.get(kind) ?? 0]).toEqual([kind, expect.toSatisfy((count: number) => count > 10)]);
    const events = [...counts.values()].reduce((sum, count) => sum + count, 0);
    expect(events).toBeGreaterThan(10_000);
  }, 180_000);
});
