import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { chooseMerge, withMerged } from "./merge-choice.js";
import type { SnapshotRecord } from "./ports.js";
import { expiredLabels, retentionLimits, retentionOf } from "./retention.js";
import { nearestKept, shortestStack, withoutSnapshots } from "./snapshot-chain.js";

const nowMs = Date.parse("2026-01-02T00:00:00Z");

function snapshot(label: string, more: Partial<SnapshotRecord> = {}): SnapshotRecord {
  return { label, parent: null, created: new Date(nowMs).toISOString(), size: 1, layers: [], images: [label], ...more };
}

/** A history as it comes about: each snapshot follows upon an earlier one, or none. */
const history = fc
  .array(fc.nat(), { maxLength: 12 })
  .map((choices) =>
    choices.map((choice, at) =>
      snapshot(`s${at}`, { parent: choice % (at + 1) === at ? null : `s${choice % (at + 1)}` }),
    ),
  );

describe("withoutSnapshots()", () => {
  it("gives what stays the nearest ancestor that stays, whatever goes", () => {
    fc.assert(
      fc.property(history, fc.array(fc.nat(11)), (snapshots, chosen) => {
        const gone = new Set(chosen.map((at) => `s${at}`));
        const left = withoutSnapshots(snapshots, gone);
        const parentOf = new Map(snapshots.map(({ label, parent }) => [label, parent]));
        expect(left.map(({ label }) => label)).toEqual(
          snapshots.map(({ label }) => label).filter((label) => !gone.has(label)),
        );
        for (const { label, parent } of left) {
          let wanted = parentOf.get(label) ?? null;
          while (wanted !== null && gone.has(wanted)) wanted = parentOf.get(wanted) ?? null;
          expect(parent).toBe(wanted);
        }
      }),
      { numRuns: 300 },
    );
  });

  it("comes to an end with a list that somebody has made go in circles, or that lacks a label", () => {
    const round = [snapshot("a", { parent: "b" }), snapshot("b", { parent: "a" }), snapshot("c", { parent: "a" })];
    expect(withoutSnapshots(round, new Set(["a", "b"])).map(({ parent }) => parent)).toEqual([null]);
    expect(nearestKept([snapshot("a")], "never", new Set())).toBeNull();
  });
});

describe("retention", () => {
  const aged = (label: string, ageS: number, more: Partial<SnapshotRecord> = {}): SnapshotRecord =>
    snapshot(label, { created: new Date(nowMs - ageS * 1000).toISOString(), ...more });
  const snapshots = [aged("a", 1000), aged("b", 500, { pinned: true }), aged("c", 100), aged("d", 50), aged("e", 10)];
  const expired = (keepLast: number, keepForS: number, kept: readonly string[] = []): string =>
    expiredLabels(snapshots, { keepLast, keepForS }, { nowMs, kept: (label) => kept.includes(label) }).join("");

  it("lets go of what neither number nor age keeps, but not of what is pinned or used", () => {
    expect(expired(0, 0)).toBe("");
    expect(expired(1, 0)).toBe("acd");
    expect(expired(99, 0)).toBe("");
    expect(expired(0, 60)).toBe("ac");
    expect(expired(0, 1)).toBe("acde");
    expect(expired(1, 60)).toBe("ac");
    expect(expired(3, 1)).toBe("a");
    expect(expired(1, 0, ["c"])).toBe("ad");
  });

  it("is the sandbox's own word, else the daemon's, for each of the two", () => {
    const usual = { keepLast: 5, keepForS: 60 };
    expect(retentionOf(undefined, usual)).toEqual(usual);
    expect(retentionOf(retentionLimits({ keep_last: 0 }), usual)).toEqual({ keepLast: 0, keepForS: 60 });
    expect(retentionLimits({})).toBeUndefined();
  });
});

describe("chooseMerge()", () => {
  const chain = (count: number): string[][] =>
    Array.from({ length: count }, (_, at) => Array.from({ length: at + 1 }, (__, i) => `i${at - i}`));

  it("takes the bottom that brings all of a chain within the bound at once", () => {
    expect(chooseMerge(chain(8), 8)).toBeNull();
    expect(chooseMerge(chain(9), 8)).toEqual(chain(9).at(-1));
    expect(chooseMerge(chain(16), 8)).toEqual(chain(9).at(-1));
    expect(chooseMerge(chain(16), 8, (images) => images.length < 16)).toEqual(chain(16).at(-1));
  });

  it("takes what branches have in common", () => {
    const common = ["c2", "c1", "c0"];
    const branches = ["a", "b"].map((name) => [...Array.from({ length: 7 }, (_, at) => `${name}${at}`), ...common]);
    expect(chooseMerge(branches, 8)).toEqual(common);
  });

  it("comes to an end, with every stack within the bound and the same files", () => {
    const stacks = fc.array(fc.tuple(fc.nat(30), fc.integer({ min: 1, max: 6 })), { minLength: 1, maxLength: 20 });
    fc.assert(
      fc.property(stacks, fc.integer({ min: 1, max: 6 }), (grown, bound) => {
        let next = 0;
        let all: (readonly string[])[] = [];
        for (const [upon, layers] of grown) {
          const below = all[upon % (all.length + 1)] ?? [];
          all.push([...Array.from({ length: layers }, () => `i${next++}`), ...below]);
        }
        // what each image stands for, bottom last
        const content = new Map(all.flat().map((image) => [image, [image]]));
        const files = (stack: readonly string[]): string => stack.flatMap((image) => content.get(image) ?? []).join();
        const before = all.map(files);
        for (let rounds = 0; ; rounds++) {
          const images = chooseMerge(all, bound);
          if (images === null) break;
          expect(rounds).toBeLessThan(200);
          const merged = `m${rounds}`;
          content.set(
            merged,
            images.flatMap((image) => content.get(image) ?? []),
          );
          all = all.map((stack) => withMerged(stack, images, merged) ?? stack);
        }
        expect(Math.max(...all.map((stack) => stack.length))).toBeLessThanOrEqual(bound);
        expect(all.map(files)).toEqual(before);
      }),
      { numRuns: 200 },
    );
  });
});

describe("shortestStack()", () => {
  it("puts merged images in the place of those that they were made of", () => {
    const merged = snapshot("a", { images: ["m"], mergedFrom: ["3", "2", "1"] });
    expect(shortestStack(["4", "3", "2", "1"], [merged])).toEqual(["4", "m"]);
    expect(shortestStack(["3", "2", "1"], [snapshot("b"), merged])).toEqual(["m"]);
    expect(shortestStack(["3", "2"], [merged])).toEqual(["3", "2"]);
    expect(shortestStack(["1", "2", "3"], [merged])).toEqual(["1", "2", "3"]);
  });
});
