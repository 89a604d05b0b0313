/**
 * How files are cut for the bucket. Snapshots' images are cut where their content says so, at blocks of the file system: what has not changed
 * since the last one is cut at the same places wherever it has come to lie, and is there already. Modules are compressed and never change, so
 * theirs are cut by size alone, to be sent and fetched in parallel.
 */

/** of the images that sq-host writes; what they hold begins at one */
export const blockBytes = 4_096;
const wordsInBlock = blockBytes / 4;
/** a piece has 256 to 2,048 blocks, 512 more than the least of them on average: 1 to 8 MiB, about 3 */
const minBlocks = 256;
const maxBlocks = 2_048;
const boundaryMask = 511;

/** bytes of a piece at most, however it is cut, and of all but the last of a file that is cut by its size */
export const maxPieceBytes = maxBlocks * blockBytes;

export type Cut = "content" | "even";

/** Finds where pieces end, in blocks that are told of one after another. */
export class ContentCutter {
  #blocks = 0;

  /** Whether a piece ends with this block, which lies at a multiple of four bytes. A last one that is shorter ends one in any case. */
  endsWith(block: Buffer): boolean {
    this.#blocks++;
    const ends = this.#blocks >= maxBlocks || (this.#blocks >= minBlocks && (mixed(block) & boundaryMask) === 0);
    if (ends) this.#blocks = 0;
    return ends;
  }
}

/** A number that any change of the block changes, as a rule; it decides nothing but where a piece ends. */
function mixed(block: Buffer): number {
  const words = new Int32Array(block.buffer, block.byteOffset, Math.min(wordsInBlock, block.byteLength >> 2));
  let mix = 0x2545f491;
  for (const word of words) mix = Math.imul(mix ^ word, 0x01000193);
  mix ^= mix >>> 15;
  mix = Math.imul(mix, 0x2c1b3c6d);
  return mix ^ (mix >>> 13);
}
