import { specialRanges } from "./special-ranges.js";

/** Prefix lengths of IPv6 entries that are looked up together, or, where a sandbox has no entry of any of them, not at all. */
export interface LengthBlock {
  /** one bit of a packet's mark, above those of verdicts */
  readonly bit: number;
  /** the longest first */
  readonly lengths: readonly number[];
  /** special ranges of the shortest of the lengths */
  readonly special: readonly string[];
}

/** The bit of a mark that says that nothing has decided yet. It is above all verdicts, and below all blocks. */
export const undecided = 4;

const most = 8;

/**
 * All lengths, the longest first. A block ends where special ranges are, since these have their say between entries of their own precision
 * and those of a lesser one.
 */
export const lengthBlocks: readonly LengthBlock[] = cut();

/** What the mark of a packet begins as: the blocks in which a sandbox has entries. */
export function blocksOf(lengths: readonly number[]): number {
  const used = lengthBlocks.filter((block) => lengths.some((length) => block.lengths.includes(length)));
  return used.reduce((mark, { bit }) => mark | bit, undecided);
}

function cut(): LengthBlock[] {
  const blocks: LengthBlock[] = [];
  let lengths: number[] = [];
  for (let length = 128; length >= 0; length--) {
    lengths.push(length);
    const special = specialRanges[6].filter((range) => range.endsWith(`/${length}`));
    if (special.length === 0 && lengths.length < most && length > 0) continue;
    blocks.push({ bit: 2 * undecided * 2 ** blocks.length, lengths, special });
    lengths = [];
  }
  return blocks;
}
