import { describe, expect, it } from "vitest";
import { blocksOf, lengthBlocks, undecided } from "./length-blocks.js";
import { specialRanges } from "./special-ranges.js";

describe("the blocks of lengths", () => {
  it("have all lengths, each once, the longest first", () => {
    expect(lengthBlocks.flatMap(({ lengths }) => lengths)).toEqual(Array.from({ length: 129 }, (_, at) => 128 - at));
  });

  it("have a bit each, which a mark of 32 bits has room for, and no verdict has", () => {
    const bits = lengthBlocks.map(({ bit }) => bit);
    expect(new Set(bits).size).toBe(bits.length);
    expect(Math.max(...bits)).toBeLessThan(2 ** 32);
    for (const bit of bits) expect([bit, Math.log2(bit) % 1, bit > undecided]).toEqual([bit, 0, true]);
  });

  it("have each special range at the end, behind all that is as precise", () => {
    expect(lengthBlocks.flatMap(({ special }) => special).toSorted()).toEqual(specialRanges[6].toSorted());
    for (const { lengths, special } of lengthBlocks)
      for (const range of special) expect([range, range.split("/")[1]]).toEqual([range, String(lengths.at(-1))]);
  });

  it("are named by the lengths that are used", () => {
    expect(blocksOf([])).toBe(undecided);
    const [first, second] = lengthBlocks;
    expect(blocksOf([128, 127, 126])).toBe(undecided + first!.bit + second!.bit);
    expect(blocksOf(Array.from({ length: 129 }, (_, at) => at))).toBe(
      lengthBlocks.reduce((sum, { bit }) => sum + bit, undecided),
    );
  });
});
