const blockSize = 4096;
const zeroes = Buffer.alloc(blockSize);

/** Bytes of a file in memory; blocks that were never written take no room. */
export class Content {
  size = 0;
  readonly #blocks = new Map<number, Buffer>();

  /** Bytes that may be elsewhere than in holes. */
  get written(): number {
    return this.#blocks.size * blockSize;
  }

  /** The bytes that `tree.c` writes, too. */
  write(offset: number, length: number, seed: number): void {
    for (let at = offset; at < offset + length; at++) {
      const number = Math.floor(at / blockSize);
      let block = this.#blocks.get(number);
      if (block === undefined) this.#blocks.set(number, (block = Buffer.alloc(blockSize)));
      block[at % blockSize] = 1 + ((seed + (at - offset) * 7) % 255);
    }
    this.size = Math.max(this.size, offset + length);
  }

  truncate(size: number): void {
    for (const [number, block] of this.#blocks) {
      if (number * blockSize >= size) this.#blocks.delete(number);
      else if ((number + 1) * blockSize > size) block.fill(0, size - number * blockSize);
    }
    this.size = size;
  }

  /** As `tree.c` counts it. */
  hash(): number {
    let hash = 2166136261;
    for (const number of [...this.#blocks.keys()].toSorted((a, b) => a - b)) {
      const block = this.#blocks.get(number) ?? zeroes;
      if (block.equals(zeroes)) continue;
      for (let byte = 0; byte < 4; byte++) hash = Math.imul(hash ^ ((number >>> (8 * byte)) & 255), 16777619);
      for (const byte of block) hash = Math.imul(hash ^ byte, 16777619);
    }
    return hash >>> 0;
  }

  copy(): Content {
    const copy = new Content();
    copy.size = this.size;
    for (const [number, block] of this.#blocks) copy.#blocks.set(number, Buffer.from(block));
    return copy;
  }
}
